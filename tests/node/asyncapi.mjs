// Reads an AsyncAPI document as AsyncAPI's own parser does; says what it complains of.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
const complaints = diagnostics.map(({ severity, code, path, message }) => ({ severity, code, path, message }));
console.log(JSON.stringify({ accepted: document !== undefined, complaints }));

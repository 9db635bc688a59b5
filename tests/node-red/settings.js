// Node-RED without its editor, and without a word to anybody but the flow's broker.
module.exports = {
  uiHost: "127.0.0.1",
  uiPort: process.env.UI_PORT,
  httpAdminRoot: false,
  httpNodeRoot: false,
  credentialSecret: false,
  telemetry: { enabled: false, updateNotification: false },
};

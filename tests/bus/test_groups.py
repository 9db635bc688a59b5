"""Groups of workers, as `inferbus status` and `inferbus doctor` find them on a bus."""

from __future__ import annotations

import json

from inferbus_client.contract import topics
from inferbus_client.contract.presence import GroupStats, Presence, Stats
from inferbus_client.fleet.checks import check_groups, check_worker
from inferbus_client.settings.client import ClientSettings
from support.inferbus import inferbus
from support.mosquitto import Mosquitto, mosquitto_pub
from support.terminal import in_terminal


def announce(broker: Mosquitto, worker: str, group: str | None, project: str = "general", reason: str = "") -> None:
    """A worker with figures; retained, for none of it is here to be asked."""
    presence = Presence(worker=worker, state="ready", model="phi", projects=(project,), group=group)
    mosquitto_pub(broker, topics.presence(worker), presence.encode().decode(), "-r")
    if group is not None:
        shared = GroupStats(name=group, workers=2, leases=1, queued=5, reached=not reason, reason=reason or None)
        stats = Stats(worker=worker, group=shared)
        mosquitto_pub(broker, topics.stats(worker), stats.encode().decode(), "-r")


def test_status_shows_them(own_broker: Mosquitto) -> None:
    for worker in ("gpu-1", "gpu-2"):
        announce(own_broker, worker, "inferbus")
    shown = inferbus("status", "--once", "--broker", own_broker.url)
    assert shown.returncode == 0, shown.stderr
    assert "group inferbus: 2 workers, 5 waiting, 1 taken, 0 conversations" in shown.stdout
    assert "  phi: gpu-1, gpu-2\n" in shown.stdout
    for columns in (40, 80, 120):
        seen = in_terminal("status", "--once", "--broker", own_broker.url, columns=columns).text
        assert "phi: gpu-1, gpu-2" in " ".join(seen.split())
    told = json.loads(inferbus("status", "--once", "--json", "--broker", own_broker.url).stdout)
    assert (told["gpu-1"]["presence"]["group"], told["gpu-2"]["stats"]["group"]["queued"]) == ("inferbus", 5)


def test_the_doctor_looks_at_the_one_that_serves_us(own_broker: Mosquitto) -> None:
    settings = ClientSettings.load({"broker": own_broker.url})
    announce(own_broker, "alone", None)
    assert list(check_groups(settings)) == []
    announce(own_broker, "other", "others", project="else", reason="timed out")
    announce(own_broker, "gpu-1", "inferbus")
    announce(own_broker, "gpu-2", "inferbus")
    assert "gpu-1 is ready with phi, in group inferbus" in check_worker(settings).text
    (well,) = check_groups(settings)
    assert (well.verdict, well.remedy) == ("ok", "")
    assert well.text.startswith("inferbus: 2 workers, 5 waiting, 1 taken")
    announce(own_broker, "gpu-2", "inferbus", reason="timed out")
    (cut_off,) = check_groups(settings)
    assert cut_off.verdict == "warning"
    assert "gpu-2 does not reach the store: timed out" in cut_off.text

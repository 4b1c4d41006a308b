"""A node that is killed has already recorded every image that it acknowledged."""

from pathlib import Path
from xml.etree.ElementTree import fromstring

from tests.node import NodeProcess, wait_until
from tests.raw_client import ASSOCIATE_AC, CR, EXPLICIT, RawClient
from tests.receive_kit import encoded, image

EACH = 12


def acknowledged(node: NodeProcess) -> set[str]:
    """Send images that are not ours (nothing is to be analyzed), kill right after the last."""
    uids = set()
    with RawClient(("127.0.0.1", node.port), 60) as client:
        assert client.associate((CR, (EXPLICIT,))) == ASSOCIATE_AC
        for _ in range(EACH):
            picture = image(BodyPartExamined="FOOT", PatientID="4711")
            assert client.store(CR, picture.SOPInstanceUID, encoded(picture)) == 0x0000
            uids.add(str(picture.SOPInstanceUID))
        node.kill()
    return uids


def recorded(trail: Path) -> tuple[set[str], list[str]]:
    """Instances, and the kinds of activity in their order."""
    instances, activities = set(), []
    whole = trail.read_bytes().split(b"\n")[:-1] if trail.exists() else []
    for line in whole:
        root = fromstring(line)  # noqa: S314 - our own
        instances |= {each.attrib["UID"] for each in root.iter("Instance")}
        activities += [each.attrib["originalText"] for each in root.iter("EventTypeCode")]
    return instances, activities


def test_what_was_acknowledged_stands_in_the_trail_after_a_kill(tmp_path: Path) -> None:
    trail = tmp_path / "audit.xml"
    with NodeProcess(tmp_path, [], audit={"file": str(trail)}) as node:
        uids = acknowledged(node.start(ready=False))
        node.start(ready=False)
        wait_until(lambda: len(recorded(trail)[1]) == 2, 60, "both starts in the trail")
    instances, activities = recorded(trail)
    assert instances == uids
    assert len(uids) == EACH
    assert activities == ["Application Start"] * 2

"""`junit.xml` from the records: one test case for each case and each check of the run.

The format that CI servers read (the Jenkins and Ant schema): a failed or inconclusive verdict is a
failure, an error of a stage, a crash or a case that never ran is an error, a known failure is
skipped. Cases that a crashed worker took with it are in it, which they are not in what a test
runner writes.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from harness.records.lines import CaseLine
from harness.records.reader import RunRecords
from harness.report import page, provenance
from harness.report.cases import Anchors, CaseView
from harness.report.checks import CheckView, check_views

_FAILURES = ("failed", "inconclusive")
_ERRORS = ("error", "crashed", "not_run")
# Characters that XML 1.0 does not have, not even as references.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(found: RunRecords) -> str:
    """The run as one `testsuites` document.

    It says what the report's views say: what is withheld there is withheld here.
    """
    pairs = page.pairs(found)
    views = [view for view, _ in pairs]
    checks = check_views(found, Anchors(), None)
    root = ET.Element("testsuites", name="acceptance")
    failed = sum(view.look.outcome in _FAILURES for view in views)
    failed += sum(check.look.outcome in _FAILURES for check in checks)
    suite = ET.SubElement(
        root,
        "testsuite",
        name="acceptance",
        tests=str(len(views) + len(checks)),
        failures=str(failed),
        errors=str(sum(view.look.outcome in _ERRORS for view in views)),
        skipped=str(sum(view.look.outcome == "known_failure" for view in views)),
        time=f"{found.end.seconds if found.end else 0:.3f}",
    )
    if found.run is not None:
        suite.set("timestamp", found.run.started)
        suite.set("hostname", _clean(found.run.machine.hostname))
    _property(suite, "provenance", ", ".join(sorted(provenance.kinds(found))))
    for banner in provenance.banners(found):
        _property(suite, "warning", banner.text)
    for view, line in pairs:
        _case(suite, view, line)
    for check in checks:
        _check(suite, check)
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")
    if not provenance.is_real(found):
        text = provenance.scrub(text)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _case(suite: ET.Element, view: CaseView, line: CaseLine | None) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        classname=f"acceptance.{view.check}",
        name=_clean(view.name),
        time=f"{line.seconds if line else 0:.3f}",
    )
    for name, value in (
        ("outcome", view.look.outcome),
        ("sentence", view.sentence),
        ("provenance", view.provenance),
        ("device", str(line.device.get("id", "")) if line else ""),
    ):
        _property(case, name, value)
    message, error = _clean(view.sentence), view.error
    if view.look.outcome in _FAILURES:
        ET.SubElement(case, "failure", message=message).text = message
    elif view.look.outcome in _ERRORS:
        found = ET.SubElement(case, "error", message=message)
        if error is not None:
            found.set("type", _clean(error.type))
            log = error.log.text if error.log is not None else ""
            found.text = _clean(f"{error.message}\n{error.remedy}\n{log}")
    elif view.look.outcome == "known_failure":
        ET.SubElement(case, "skipped", message=message)


def _check(suite: ET.Element, check: CheckView) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        classname="acceptance.run",
        name=_clean(f"{check.name}: {check.subject}"),
        time="0",
    )
    _property(case, "outcome", check.look.outcome)
    if check.look.outcome in _FAILURES:
        ET.SubElement(case, "failure", message=_clean(check.sentence))


def _property(owner: ET.Element, name: str, value: str) -> None:
    properties = owner.find("properties")
    if properties is None:
        properties = ET.SubElement(owner, "properties")
    ET.SubElement(properties, "property", name=name, value=_clean(value))


def _clean(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)

"""`junit.xml` from the records: one test case for each case and each check of the run.

The format that CI servers read (the Jenkins and Ant schema): a failed or inconclusive verdict is a
failure, an error of a stage, a crash or a case that never ran is an error. A known failure is
skipped, and so is what a rehearsal leaves undecided and does not fail for. Cases that a crashed
worker took with it are in it, which they are not in what a test runner writes.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from harness.base.terms import Outcome
from harness.judge.causes import excused
from harness.records.lines import CaseLine, RunCheckLine
from harness.records.reader import RunRecords
from harness.report.view import view

LOG_SHOWN = 12_000  # characters
_FAILURES: tuple[Outcome, ...] = ("failed", "inconclusive")
_ERRORS: tuple[Outcome, ...] = ("error", "crashed", "not_run")
# Characters that XML 1.0 does not have, not even as references.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(records: RunRecords) -> str:
    """Return the run as one `testsuites` document."""
    run = view(records)
    cases = run.records.cases
    outcomes = [case.outcome for case in cases]
    spared = excused(cases)
    excuses = len(spared)
    checks = [check.outcome for check in run.records.checks]
    root = ET.Element("testsuites", name="acceptance")
    suite = ET.SubElement(
        root,
        "testsuite",
        name="acceptance",
        tests=str(len(outcomes) + len(checks)),
        failures=str(sum(one in _FAILURES for one in (*outcomes, *checks)) - excuses),
        errors=str(sum(one in _ERRORS for one in outcomes)),
        skipped=str(outcomes.count("known_failure") + excuses),
        time=f"{records.end.seconds if records.end else 0:.3f}",
    )
    if records.run is not None:
        suite.set("timestamp", records.run.started)
        suite.set("hostname", _clean(records.run.machine.hostname))
    warnings = [("warning", banner.text) for banner in run.banners]
    _properties(suite, ("provenance", ", ".join(sorted(run.shown.kinds))), *warnings)
    for case in cases:
        _case(suite, case, spared=case in spared)
    for check in run.records.checks:
        _check(suite, check)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _case(suite: ET.Element, line: CaseLine, *, spared: bool) -> None:
    error = line.error
    message = _clean(line.sentence)
    case = ET.SubElement(
        suite,
        "testcase",
        classname=f"acceptance.{line.check}",
        name=_clean(line.case),
        time=f"{line.seconds:.3f}",
    )
    _properties(
        case,
        ("outcome", line.outcome),
        ("sentence", line.sentence),
        ("provenance", line.provenance),
        ("device", line.device.id if line.device is not None else ""),
    )
    if line.outcome == "known_failure" or spared:
        ET.SubElement(case, "skipped", message=message)
    elif line.outcome in _FAILURES:
        ET.SubElement(case, "failure", message=message).text = message
    elif line.outcome in _ERRORS:
        element = ET.SubElement(case, "error", message=message)
        if error is not None:
            element.set("type", _clean(error.type))
            element.text = _clean(f"{error.message}\n{error.remedy}\n{error.log[-LOG_SHOWN:]}")


def _check(suite: ET.Element, check: RunCheckLine) -> None:
    name = _clean(f"{check.name}: {check.subject}")
    case = ET.SubElement(suite, "testcase", classname="acceptance.run", name=name, time="0")
    _properties(case, ("outcome", check.outcome))
    if check.outcome in _FAILURES:
        ET.SubElement(case, "failure", message=_clean(check.sentence))


def _properties(owner: ET.Element, *values: tuple[str, str]) -> None:
    properties = ET.SubElement(owner, "properties")
    for name, value in values:
        ET.SubElement(properties, "property", name=name, value=_clean(value))


def _clean(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)

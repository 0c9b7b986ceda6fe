"""Adds up what tests have counted, and prints it below their results."""

import collections


def pytest_terminal_summary(terminalreporter):
    counts = collections.Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                counts.update(dict(report.user_properties))
    if counts:
        words = ", ".join(f"{count} {what}" for what, count in counts.items())
        terminalreporter.write_line(f"Tried: {words}.")

"""Reading /metrics in tests."""

from prometheus_client.parser import text_string_to_metric_families


class Samples:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """One sample; KeyError where it is not there with exactly these labels."""
        return self._values[name, frozenset(labels.items())]

    def matching(self, name: str, **labels: str) -> dict[frozenset[tuple[str, str]], float]:
        """The samples of a name with at least these labels."""
        wanted = frozenset(labels.items())
        return {found: value for (one, found), value in self._values.items() if one == name and wanted <= found}

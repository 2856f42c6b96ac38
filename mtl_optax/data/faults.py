"""What is wrong with a file, said so that the user can mend it."""

from pathlib import Path


class BadData(ValueError):
    """A file, or a row of it, that does not hold what its place in the layout asks for.

    The text names the file, the row where there is one, what was found and the cure.
    With `--skip-bad` an example that raises this is counted and left out; every other
    error ends the run.
    """

    def __init__(self, path: Path | str, found: str, cure: str, row: int | None = None):
        self.path, self.found, self.cure, self.row = Path(path), found, cure, row
        place = f"{path}, row {row}" if row is not None else f"{path}"
        super().__init__(f"{place}: {found}. {cure}")

    def __reduce__(self) -> tuple[object, ...]:
        """Errors of a loader's worker travel to its parent as pickles."""
        return type(self), (self.path, self.found, self.cure, self.row)


class BadLayout(ValueError):
    """A folder in which the data set cannot be found; never skipped."""

    def __init__(self, path: Path | str, found: str, cure: str):
        self.path, self.found, self.cure = Path(path), found, cure
        super().__init__(f"{path}: {found}. {cure}")

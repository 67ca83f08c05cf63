"""Finding out by running the model which axis counts samples, where names and shapes only hint.

Readings are tried in order of what names and shapes make likely (:mod:`calibrators.samples.trial`).
Where none is a batch, a dict that a loader yields, or a file, is one sample. Where that would make
a single sample of rows that the names call samples, the user is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from artefacts.errors import DataError, ModelError
from calibrators.samples.axes import Axes, SampleAxes, declared_axes, fixed_batch, with_axes
from calibrators.samples.samples import InputSpec, Samples
from calibrators.samples.trial import FOUND, Run, Trial

__all__ = ["find_axes"]

Read = Callable[[Sequence[InputSpec]], Samples]


def find_axes(
    run: Run,
    inputs: Sequence[InputSpec],
    read: Read,
    *,
    outputs: Sequence[str],
    chosen: Collection[str] = (),
    said: Axes | None = None,
) -> SampleAxes:
    """The axes along which samples lie, by running the model on two of them.

    Args:
        run: the float model, with every output and whatever else must carry the axis.
        inputs: as the model declares them.
        read: opens the data for inputs whose axes are given.
        outputs: the model's own outputs; what is run beside them decides, too.
        chosen: outputs whose shape depends on values (boxes that are left), which decide nothing.
        said: axes that the user knows; what is left to find out is what the outputs show.

    Raises:
        DataError: the data fits no reading of the inputs, or what its rows are is undecidable.
    """
    if said is not None:
        return _as_said(run, inputs, said, read, outputs=outputs, chosen=chosen)
    declared = declared_axes(inputs)
    misfit: DataError | None = None
    disproved = False
    for axes in _hypotheses(inputs, declared):
        specs = with_axes(inputs, axes)
        if fixed_batch(specs) == 1:
            return SampleAxes(axes=axes, why="fixed by the model")
        try:
            samples = list(islice(read(specs), 2))
        except DataError as err:
            if axes == declared and _is_certain(specs):
                raise
            misfit = misfit or err
            continue
        trial = Trial(run=run, specs=specs, samples=samples, outputs=outputs, chosen=chosen)
        try:
            found = trial.judge() if samples else None
        except ModelError:
            continue
        if found is not None:
            return found
        disproved = True
    return _Whole(
        run=run, inputs=inputs, declared=declared, read=read, misfit=misfit, disproved=disproved
    ).judge()


def _as_said(
    run: Run,
    inputs: Sequence[InputSpec],
    said: Axes,
    read: Read,
    *,
    outputs: Sequence[str],
    chosen: Collection[str],
) -> SampleAxes:
    why = "as the flags say"
    specs = with_axes(inputs, said)
    if all(spec.axis is None for spec in specs):
        return SampleAxes(axes=said, why=why)
    samples = list(islice(read(specs), 2))
    trial = Trial(run=run, specs=specs, samples=samples, outputs=outputs, chosen=chosen)
    try:
        found = trial.judge() if samples else None
    except ModelError:
        found = None
    if found is None:  # neighbours show, so each is judged alone
        return SampleAxes(axes=said, apart=False, why=why)
    return replace(found, why=why)


def _hypotheses(
    inputs: Sequence[InputSpec], declared: dict[str, int | None]
) -> Iterator[dict[str, int | None]]:
    """Axes to try: those of one name, the first free one of each input, the second of each.

    An input of which no axis is free, beside others, brings no batch: its samples are whole.
    """
    ranked = [spec for spec in inputs if any(dim != 1 for dim in spec.shape)]
    tried: list[dict[str, int | None]] = []
    nothing: dict[str, int | None] = dict.fromkeys(declared)
    for found in (
        declared,
        _axes_of(ranked, lambda spec: next(iter(_free(spec)), None)),
        _axes_of(ranked, lambda spec: 1 if 1 in _free(spec) else None),
    ):
        axes = nothing | found
        if axes != nothing and axes not in tried:
            tried.append(axes)
            yield axes


def _axes_of(
    inputs: Sequence[InputSpec], choose: Callable[[InputSpec], int | None]
) -> dict[str, int | None]:
    """One axis for each input, or for none."""
    axes = {spec.name: choose(spec) for spec in inputs}
    return {} if None in axes.values() else axes


def _free(spec: InputSpec) -> list[int]:
    """Free ones of the first two axes; none where the first is a batch of one."""
    fixed_to_one = spec.shape[:1] == (1,)
    return [a for a, d in enumerate(spec.shape[:2]) if not isinstance(d, int) and not fixed_to_one]


def _is_certain(specs: Sequence[InputSpec]) -> bool:
    """Whether no other reading explains data that does not fit: one input, or one name for all."""
    names = [spec.shape[spec.axis] for spec in specs if spec.axis is not None]
    return len(names) == 1 or (len(set(names)) == 1 and isinstance(names[0], str))


@dataclass(frozen=True, kw_only=True)
class _Whole:
    """The reading without an axis: a dict, a file, an entry of one more axis is one sample.

    Attributes:
        run: the model.
        inputs: as declared.
        declared: axes that names and shapes say, which were tried.
        read: opens the data.
        misfit: why the data fits another reading no better; raised where it does not fit this one.
        disproved: whether the model ran on rows and gave results that depend on each other.
    """

    run: Run
    inputs: Sequence[InputSpec]
    declared: Axes
    read: Read
    misfit: DataError | None
    disproved: bool

    def judge(self) -> SampleAxes:
        """What was found.

        Raises:
            DataError: the data does not fit, or one file of rows may be one sample or many.
        """
        whole = SampleAxes(axes=dict.fromkeys(self.declared), why=FOUND)
        try:
            samples = self.read(whole.of(self.inputs))
            first = next(iter(samples)).inputs
        except DataError as err:
            if self.disproved and self.misfit is None:
                raise self._question(str(err)) from err
            raise self.misfit or err from err
        if self.disproved:
            self._ask_if_one(samples)
            return whole
        try:
            self.run(first)
        except ModelError as err:
            if self.misfit is not None:
                raise self.misfit from err
            # Then nothing is known; the step that needs the model to run says why it does not.
            return SampleAxes(axes=self.declared, apart=False, why=f"not tried: {err}")
        return whole

    def _ask_if_one(self, samples: Samples) -> None:
        """Rows that the names call samples, in one file that would be a single sample."""
        if all(axis is None for axis in self.declared.values()) or _count(samples) != 1:
            return
        rows = _count(self.read(with_axes(self.inputs, self.declared)))
        if rows is not None and rows > 1:
            raise self._question(f"{samples.path} holds {rows} rows")

    def _question(self, found: str) -> DataError:
        axes = ",".join(
            f"{name}={axis}" for name, axis in self.declared.items() if axis is not None
        )
        return DataError(
            f"{found}; along {axes or 'no axis'} the model gives for a row what depends on the "
            "others, or no row for each, expected samples that it tells apart; say "
            f"--batch-axis {axes or 'INPUT=AXIS'} where each row is a sample all the same, "
            "--whole-samples where rows together are one, or save an axis of samples before them"
        )


def _count(samples: Samples) -> int | None:
    try:
        return len(samples)
    except TypeError:  # a loader: each of its dicts is a sample
        return None

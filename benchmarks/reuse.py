"""What is taken over and what is run again after a change, of each kind of change: no wrong reuse, no needless run.

    python benchmarks/reuse.py

Each case makes a change, runs a sweep of one cell that is recorded, and looks at the latent: it must be that of the
world after the change, and the cell must have run exactly if the change can make a difference. Prints the table
of docs/reuse.md, and exits with status 1 if a case is wrong. It works on copies below a temporary
folder, and needs a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._processes import ROOT
from pipeline.engine.comfyui.install import DEFAULT_VERSION, install_release

ARGS = "+comfyui.args"
AGAIN, TAKEN, REFUSED = "run again", "taken over", "refused"
PACK = ROOT / "benchmarks" / "reuse_pack"
TERMS = {
    "pack/nodes/helper.py": 1.0,
    "pack/nodes/unregistered.py": 2.0,
    "pack/data.txt": 4.0,
    "pack/data.json": 8.0,
    "outside/outside_helper.py": 16.0,
    "files/named.txt": 32.0,
    "files/folder/a.txt": 64.0,
    "models/embeddings/foo.pt": 128.0,
    "models/vae_approx/taeprobe_encoder.pth": 256.0,
    "models/diffusers/demo/model.txt": 512.0,
}
"""The files that the sum of ReuseProbe follows from, and the number that each holds at first."""


@dataclass
class World:
    """The files and settings of the cases, below a folder of their own."""

    folder: Path
    terms: dict[str, float] = field(default_factory=lambda: dict(TERMS))
    variables: dict[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    runs: int = 0

    def build(self) -> None:
        """Copy ComfyUI and the pack, and write all terms."""
        shutil.copytree(install_release(DEFAULT_VERSION), self.folder / "ComfyUI")
        shutil.copytree(PACK, self.folder / "pack", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "models", self.folder / "models", dirs_exist_ok=True)
        for name in self.terms:
            self.write(name)
        (self.folder / "models/vae_approx/taeprobe_decoder.pth").write_text("0")

    def write(self, name: str, term: float | None = None) -> None:
        """Let a file hold a term."""
        self.terms[name] = self.terms[name] if term is None else term
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".py" and path.exists():
            path.write_text(re.sub(r"(?i)(term = )[\d.]+", rf"\g<1>{self.terms[name]}", path.read_text()))
        else:
            path.write_text(f"TERM = {self.terms[name]}\n" if path.suffix == ".py" else str(self.terms[name]))

    def run(self, *overrides: str) -> tuple[list[str], list[float]]:
        """Run a sweep; return for each cell whether it was run or taken over, and the mean of its latent."""
        self.runs += 1
        sweep = self.folder / "sweeps" / str(self.runs)
        command = [sys.executable, str(ROOT / "run.py"), "-m", f"hydra.sweep.dir={sweep}", *overrides]
        command += [f"tracking.uri=sqlite:///{self.folder}/mlflow.db", f"comfyui.models=[{self.folder}/models]"]
        command += [one for one in self.overrides if not _is_given(one, overrides)]
        paths = os.pathsep.join([str(self.folder / "packages"), str(self.folder / "outside")])
        variables = {**os.environ, **self.variables, "PYTHONPATH": paths}
        variables.pop("PYTHONDONTWRITEBYTECODE", None)  # ComfyUI's modules would be compiled at every start
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        cells = sorted((path for path in sweep.iterdir() if path.name.isdecimal()), key=lambda one: int(one.name))
        taken = set(re.findall(r"^#(\d+) .*: recorded already", done.stderr, re.MULTILINE))
        return [TAKEN if cell.name in taken else AGAIN for cell in cells], [_read_mean(cell) for cell in cells]


def _is_given(override: str, others: tuple[str, ...]) -> bool:
    path = override.partition("=")[0].lstrip("+")
    return any(one.partition("=")[0].lstrip("+") == path for one in others)


def _read_mean(folder: Path) -> float:
    from safetensors.torch import load_file

    (path,) = folder.glob("*.latent")
    return float(load_file(path)["latent_tensor"].double().mean())


@dataclass(frozen=True)
class Case:
    """A kind of change, what must happen to the recorded cell, and why."""

    name: str
    change: Callable[[World], None]
    expected: str
    why: str = ""


def _change_nothing(world: World) -> None:
    pass


def _change(name: str, term: float) -> Callable[[World], None]:
    return lambda world: world.write(name, term)


def _touch(world: World) -> None:
    for name in world.terms:
        os.utime(world.folder / name)


def _move_copy(world: World) -> None:
    """Replace the files by copies with other inodes."""
    for name in world.terms:
        path = world.folder / name
        shutil.copyfile(path, path.with_suffix(".copy"))
        path.with_suffix(".copy").replace(path)


def _edit_core(world: World) -> None:
    path = world.folder / "ComfyUI/comfy/samplers.py"
    path.write_text(f"{path.read_text()}\nTERM = 1024.0\n")
    world.terms["core"] = 1024.0


def _keep_times(world: World) -> None:
    path = world.folder / "files/named.txt"
    status = path.stat()
    world.write("files/named.txt", 33.0)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _set_variable(name: str, value: str, term: float = 0.0) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.variables[name] = value
        world.terms[name] = term

    return change


def _fake_package(name: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        info = world.folder / "packages" / f"{name}-99.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.0\n")

    return change


def _override(text: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.overrides = [one for one in world.overrides if not _is_given(one, (text,))] + [text]

    return change


def _add_constant(world: World) -> None:
    _override("+probe.constant=0.5")(world)
    world.terms["constant"] = 0.5


def _add_file(world: World) -> None:
    world.terms["files/folder/b.txt"] = 3.0
    world.write("files/folder/b.txt")


def _remove_file(world: World) -> None:
    del world.terms["files/folder/b.txt"]
    (world.folder / "files/folder/b.txt").unlink()


def _damage_record(world: World) -> None:
    for path in (world.folder / "mlartifacts").rglob("probe.latent"):
        path.write_bytes(b"damaged")


CASES = (
    Case("nothing", _change_nothing, TAKEN),
    Case("all files touched", _touch, TAKEN, "their content is the same"),
    Case("all files replaced by copies of themselves", _move_copy, TAKEN, "their content is the same"),
    Case("a constant", _add_constant, AGAIN),
    Case("ComfyUI's core, under the same version", _edit_core, AGAIN),
    Case("a pack's helper in a folder without `__init__.py`", _change("pack/nodes/helper.py", 1.25), AGAIN),
    Case("a pack's class that is in no `sys.modules`", _change("pack/nodes/unregistered.py", 2.5), AGAIN),
    Case("a pack's `data.txt`", _change("pack/data.txt", 4.5), AGAIN),
    Case("a pack's `data.json`", _change("pack/data.json", 8.5), AGAIN),
    Case("a module outside the pack that it imports", _change("outside/outside_helper.py", 16.5), AGAIN),
    Case("a file that an input names", _change("files/named.txt", 32.5), AGAIN),
    Case("the same, with its size and time of modification kept", _keep_times, AGAIN),
    Case("a file in a folder that an input names", _change("files/folder/a.txt", 64.5), AGAIN),
    Case("a file added to such a folder", _add_file, AGAIN),
    Case("that file removed again", _remove_file, TAKEN, "as before it was added, two cells ago"),
    Case("`embeddings/foo.pt` of the text `embedding:foo`", _change("models/embeddings/foo.pt", 128.5), AGAIN),
    Case("a file that a short name stands for", _change("models/vae_approx/taeprobe_encoder.pth", 256.5), AGAIN),
    Case("a file of a model folder (DiffusersLoader)", _change("models/diffusers/demo/model.txt", 512.5), AGAIN),
    Case("an environment variable that the pack reads", _set_variable("REUSE_TERM", "2048", 2048.0), AGAIN),
    Case("threads of torch", _set_variable("OMP_NUM_THREADS", "1"), AGAIN, "last digits may differ"),
    Case("version of numpy", _fake_package("numpy"), AGAIN, "last digits may differ"),
    Case("version of comfy-kitchen", _fake_package("comfy_kitchen"), AGAIN, "last digits may differ"),
    Case("version of a package that nothing here computes with", _fake_package("alembic"), TAKEN),
    Case(
        "attention in use", _override("+comfyui.args.use_split_cross_attention=true"), AGAIN, "last digits may differ"
    ),
    Case("`comfyui.reproducible`", _override("comfyui.reproducible=true"), AGAIN, "last digits may differ"),
    Case("the recorded latent, damaged in the store", _damage_record, AGAIN),
    Case("nothing, once more", _change_nothing, TAKEN),
)


def try_cases(world: World) -> Iterator[tuple[Case, str, bool]]:
    """Make all changes, one after the other; yield each with the outcome and whether the latent is right."""
    world.overrides = [
        *(f"comfyui.path={world.folder}/ComfyUI", f"comfyui.custom_nodes=[{world.folder}/pack]"),
        *("run.outputs=[probe]", "+probe._node_=ReuseProbe", "+probe.constant=0.0", "+probe.short=taeprobe"),
        *(f"+probe.path={world.folder}/files/named.txt", f"+probe.folder={world.folder}/files/folder"),
        *("+probe.model_path=demo", "'+probe.text=\"a (embedding:foo :1.2)\"'"[1:-1], "seed=1"),
    ]
    world.run()
    for case in CASES:
        case.change(world)
        (outcome,), (mean,) = world.run()
        yield case, outcome, mean == sum(world.terms.values())


def try_lora(world: World) -> tuple[Case, str, bool]:
    """Change a LoRA in place, with the same size and time of modification."""
    case = Case("a LoRA, with its size and time of modification kept (`rsync -t`)", _change_nothing, AGAIN)
    world.overrides, world.variables = [], {}
    _, (before,) = world.run("seed=7", "sampler.steps=2")
    path = world.folder / "models/loras/demo_outline.safetensors"
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-4000:] = bytes(4000)
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    (outcome,), (after,) = world.run("seed=7", "sampler.steps=2")
    return case, outcome, before != after


def try_mutation(world: World) -> tuple[Case, str, bool]:
    """Run a sweep over the factor of a node that changes its input in place, and then run it again."""
    case = Case("an image that a node multiplies in place by 0.5, 0.25, 0.125", _change_nothing, TAKEN)
    world.overrides = [f"comfyui.custom_nodes=[{world.folder}/pack]", "run.outputs=[mut]"]
    graph = ["+image._node_=EmptyImage", "+image.width=64", "+image.height=64"]
    graph += ["+image.batch_size=1", "+image.color=16777215"]
    graph += ["+mut._node_=ReuseMultiply", "+mut.image=[image,IMAGE]", "+mut.factor=0.5,0.25,0.125"]
    world.run(*graph)
    outcomes, means = world.run(*graph)
    return case, ", ".join(sorted(set(outcomes))), means == [0.5, 0.25, 0.125]


@dataclass(frozen=True)
class InputCase:
    """An input of the tiny model in a form that a user may give.

    `said` is a part of the message if the input is refused. An input that is not refused must give the latent of
    `as_comfyui_has_it`.
    """

    name: str
    why: str
    given: Callable[[Inputs], None]
    as_comfyui_has_it: Callable[[Inputs], None] = lambda inputs: None
    overrides: tuple[str, ...] = ()
    said: str = ""


@dataclass
class Inputs:
    """What the tiny model's input files hold."""

    conditioning: Any  # [1, 16, 3584]
    metadata: dict[str, Any]
    latent: Any  # [1, 16, 1, 16, 16]

    def write(self, folder: Path) -> list[str]:
        """Write the files, and return the overrides that name them."""
        import torch

        torch.save([[self.conditioning, self.metadata]], folder / "positive.pt")
        torch.save({"samples": self.latent}, folder / "latent.pt")
        return [f"positive.path={folder}/positive.pt", f"latent.path={folder}/latent.pt"]


def _give_mask(dtype: str) -> Callable[[Inputs], None]:
    def give(inputs: Inputs) -> None:
        import torch

        mask = torch.ones(1, 16, dtype=torch.int64)
        mask[:, 12:] = 0
        inputs.metadata["attention_mask"] = mask.to(getattr(torch, dtype))

    return give


def _drop_frames(inputs: Inputs) -> None:
    inputs.metadata["reference_latents"] = [one[:, :, 0] for one in inputs.metadata["reference_latents"]]


def _pack(inputs: Inputs) -> None:
    patches = inputs.latent.reshape(1, 16, 8, 2, 8, 2)
    inputs.latent = patches.permute(0, 2, 4, 1, 3, 5).reshape(1, 64, 64)


def _keep_one_channel(inputs: Inputs) -> None:
    inputs.latent = inputs.latent[:, :1]


def _name_unknown_method(inputs: Inputs) -> None:
    inputs.metadata["reference_latents_method"] = "indx"


def _repeat_reference(inputs: Inputs) -> None:
    inputs.metadata["reference_latents"] = [one.repeat(3, 1, 1, 1, 1) for one in inputs.metadata["reference_latents"]]


def _widen(inputs: Inputs) -> None:
    inputs.conditioning = inputs.conditioning.repeat(1, 1, 2)[..., :4096]


INPUT_CASES = (
    InputCase("reference latents without the dimension of frames", "as with it", _drop_frames),
    InputCase("a mask of 0 and 1 as float", "as with int64", _give_mask("float32"), _give_mask("int64")),
    InputCase("a mask of 0 and 1 as bool", "as with int64", _give_mask("bool"), _give_mask("int64")),
    InputCase(
        "a latent as diffusers packs it, with the picture's size",
        "as unpacked",
        _pack,
        overrides=("latent.height=128", "latent.width=128"),
    ),
    InputCase(
        "a latent as diffusers packs it",
        "its size is unknown",
        _pack,
        said="samples are packed as diffusers packs latents",
    ),
    InputCase(
        "a latent of one channel where the model has 16", "it would be broadcast", _keep_one_channel, said="channel"
    ),
    InputCase(
        "an unknown `reference_latents_method`",
        "it would be ignored",
        _name_unknown_method,
        said="must be one of offset, index",
    ),
    InputCase("reference latents of another batch", "", _repeat_reference, said="is a batch of 3"),
    InputCase("a conditioning of 4096 channels where the model takes 3584", "", _widen, said="3584"),
)


def try_inputs(world: World) -> Iterator[tuple[Case, str, bool]]:
    """Give inputs in other forms, each after the form that ComfyUI has for the same input."""
    import torch

    from pipeline.models.tiny import make_tiny_model

    def read() -> Inputs:
        ((conditioning, metadata),) = torch.load(tiny / "positive.pt", weights_only=True)
        return Inputs(conditioning, metadata, torch.randn(1, 16, 1, 16, 16, generator=torch.Generator().manual_seed(0)))

    tiny = make_tiny_model()
    world.variables, world.overrides = {}, ["experiment=tiny", "sampler.steps=1", "sampler.denoise=0.5", "seed=1"]
    for one in INPUT_CASES:
        right, given = read(), read()
        one.as_comfyui_has_it(right)
        one.given(given)
        case = Case(one.name, _change_nothing, REFUSED if one.said else AGAIN, one.why)
        try:
            if not one.said:
                _, (expected,) = world.run(*right.write(world.folder))
            (outcome,), (mean,) = world.run(*given.write(world.folder), *one.overrides)
        except RuntimeError as error:
            yield case, REFUSED, bool(one.said) and one.said in str(error)
        else:
            yield case, outcome, not one.said and mean == expected


def main() -> int:
    """Print the table, and return the exit status: 0 if every case is right."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    wrong = needless = 0
    print("| what changed | expected | came of it | latent | why |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="latentgrid-") as name:
        world = World(Path(name))
        world.build()

        def judge(case: Case, outcome: str, is_right: bool) -> None:
            nonlocal wrong, needless
            wrong += not is_right or (case.expected != TAKEN and outcome != case.expected)
            needless += (case.expected, outcome) == (TAKEN, AGAIN)
            print(f"| {case.name} | {case.expected} | {outcome} | {'right' if is_right else 'WRONG'} | {case.why} |")

        for tried in try_cases(world):
            judge(*tried)
        judge(*try_lora(world))
        judge(*try_mutation(world))
        for tried in try_inputs(world):
            judge(*tried)
    print(f"\n{wrong} wrong reuses, {needless} needless runs")
    return 1 if wrong or needless else 0


if __name__ == "__main__":
    sys.exit(main())

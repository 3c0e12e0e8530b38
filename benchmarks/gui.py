"""Opens exported graphs in ComfyUI's real GUI, in a browser, and compares what it makes of them with what was exported.

    pip download --no-deps comfyui-frontend-package==1.47.12; unzip -d GUI comfyui_frontend_package-*.whl
    python benchmarks/gui.py GUI/comfyui_frontend_package/static [--browser chromium] [FILE ...]

Without files: the workflows of several configs. A FILE of a run (a PNG, a .latent, workflow.json, prompt.json) is
dropped onto the canvas, and compared with the prompt.json beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _browser import PATIENCE, Page, open_page, run_browser
from _processes import Server, Setting

from pipeline.config.read import compose_config, read_config
from pipeline.engine.comfyui.locate import find_comfyui
from pipeline.graph.api_format import is_link, read_api_format, write_api_format
from pipeline.graph.model import Graph, Node
from pipeline.graph.reader import VALUE
from pipeline.models.tiny import make_tiny_model
from pipeline.runs.process import open_session
from pipeline.workflow.to_ui import write_ui_format

CONFIGS: Mapping[str, Sequence[str]] = {
    "the default graph": [],
    "a bypassed node": ["lora._bypass_=true"],
    "two bypassed nodes in a row": ["lora._bypass_=true", "auraflow._bypass_=true"],
    "floats that the GUI would round": ["sampler.cfg=4.98", "auraflow.shift=1.23456"],
    "texts that look like dynamic prompts": [
        *(
            "+clip._node_=CLIPLoader",
            "+clip.clip_name=x.safetensors",
            "+clip.type=wan",
            "+clip.device=default",
            "run.outputs=[one,two]",
        ),
        *("+one._node_=CLIPTextEncode", "+one.clip=[clip,CLIP]", "+one.text='{red|blue} fox'"),
        *("+two._node_=CLIPTextEncode", "+two.clip=[clip,CLIP]", "+two.text='a fox // no comment'"),
    ],
    "an image saved": [
        *("+vae._node_=EmptyImage", "+vae.width=64", "+vae.height=64", "+vae.batch_size=1", "+vae.color=255"),
        *("+save._node_=SaveImage", "+save.images=[vae,IMAGE]", "+save.filename_prefix=x"),
    ],
}

READY = "!!(window.app?.canvas && window.app?.graph && window.LiteGraph?.registered_node_types?.KSampler)"

# Defines `load` and `drop`, which return what the GUI would send to the server.
SCRIPT = """
(() => {
  const tell = async () => {
    const prompt = (await app.graphToPrompt()).output;
    const boxes = app.graph.nodes.map((node) => [String(node.id), node.title, ...node.pos, ...node.size]);
    return JSON.stringify({ prompt, boxes, workflow: app.graph.serialize() });
  };
  window.load = async (workflow) => { await app.loadGraphData(workflow); return await tell(); };
  window.drop = async (name, text) => {
    app.graph.clear();
    const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    const type = name.endsWith(".png") ? "image/png" : name.endsWith(".json") ? "application/json" : "";
    await app.handleFile(new File([bytes], name, { type }));
    for (let tries = 0; !app.graph.nodes.length && tries < 50; tries++)
      await new Promise((done) => setTimeout(done, 100));
    return await tell();
  };
})()
"""


async def shoot(page: Page, path: Path) -> None:
    """Write a picture of the page, with the whole graph and without the dialog that greets new users."""
    key = {"key": "Escape", "code": "Escape", "windowsVirtualKeyCode": 27}
    await page.send("Input.dispatchKeyEvent", type="keyDown", **key)
    await page.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    await asyncio.sleep(1)
    await page.shoot(path)


@contextmanager
def run_server(folder: Path, gui: Path) -> Iterator[str]:
    """Run ComfyUI's server with the GUI, and yield its address."""
    setting = Setting(find_comfyui(), make_tiny_model(), "", 1)
    with Server(folder / "server", setting, ["--front-end-root", str(gui)]) as server:
        server.wait_until_listening()
        yield server.address


def strip(prompt: Mapping[str, Any]) -> dict[str, Any]:
    """Return a prompt without the entries that only people read."""
    return {name: {key: one for key, one in info.items() if key != "_meta"} for name, info in prompt.items()}


def inline(prompt: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Return a prompt with the values of additional Primitive nodes in the nodes that read them.

    `ours` is the prompt that was exported, which tells the additional nodes.
    """
    held = {name: info["inputs"]["value"] for name, info in prompt.items() if name not in ours and "." in name}
    return {
        name: {
            "class_type": info["class_type"],
            "inputs": {
                key: held.get(value[0], value) if is_link(value) else value for key, value in info["inputs"].items()
            },
        }
        for name, info in prompt.items()
        if name not in held
    }


def explain(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return the differences between two prompts, a line for each."""
    lines = [f"only ours: {name}" for name in ours.keys() - theirs.keys()]
    lines += [f"only the GUI's: {name}" for name in theirs.keys() - ours.keys()]
    for name in ours.keys() & theirs.keys():
        one, two = ours[name]["inputs"], theirs[name]["inputs"]
        for key in sorted(one.keys() | two.keys()):
            if one.get(key, "absent") != two.get(key, "absent"):
                lines.append(f"{name}.{key}: {one.get(key, 'absent')!r}, but the GUI has {two.get(key, 'absent')!r}")
    return lines


def find_overlaps(boxes: Sequence[Sequence[Any]]) -> list[str]:
    """Return which nodes overlap. A title is 30 pixels high, above the node."""
    found = []
    for index, (_, one, x, y, w, h) in enumerate(boxes):
        for _, two, x2, y2, w2, h2 in boxes[index + 1 :]:
            if x < x2 + w2 and x2 < x + w and y - 30 < y2 + h2 and y2 - 30 < y + h:
                found.append(f"{one} and {two} overlap")
    return found


async def check(port: int, address: str, args: argparse.Namespace) -> bool:
    """Open all graphs in the GUI, print the differences, and return whether there are none."""
    good = True
    async with open_page(port, address) as page:
        await page.wait_for(READY, PATIENCE)
        await page.evaluate(SCRIPT)
        for file in args.files:
            told = json.loads(await page.evaluate(f"drop({json.dumps(file.name)}, {encode(file)})"))
            prompt = json.loads((file.parent / "prompt.json").read_text())
            good &= report(str(file), explain(strip(prompt), strip(told["prompt"])), told)
            if args.shots:
                await shoot(page, args.shots / f"{file.parent.name}_{file.stem}.png")
        for name, workflow, prompt in () if args.files else list_cases(args.prompts):
            told = json.loads(await page.evaluate(f"load({json.dumps(workflow)})"))
            lines = explain(strip(prompt), inline(told["prompt"], prompt)) + find_overlaps(told["boxes"])
            again = json.loads(await page.evaluate(f"load({json.dumps(told['workflow'])})"))
            lines += [f"saved again: {line}" for line in explain(strip(prompt), inline(again["prompt"], prompt))]
            good &= report(name, lines, told)
            if args.shots:
                await shoot(page, args.shots / f"{name.replace(' ', '_')}.png")
    return good


def encode(file: Path) -> str:
    """Return the content of a file as a JavaScript string, in base64."""
    return json.dumps(base64.b64encode(file.read_bytes()).decode())


def report(name: str, lines: Sequence[str], told: Mapping[str, Any]) -> bool:
    """Print the differences of a graph, and return whether there are none."""
    print(f"{'differs' if lines else 'equal':<8}{name} ({len(told['prompt'])} nodes)")
    for line in lines:
        print(f"        {line}")
    return not lines


def list_cases(prompts: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield name, workflow and prompt of the given prompts in files, or else of CONFIGS."""
    for path in prompts:
        yield path.stem, *export_prompt(json.loads(path.read_text()))
    for name, overrides in {} if prompts else CONFIGS.items():
        yield name, *export(overrides)


def export_prompt(prompt: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return workflow and prompt of a prompt, whose models need not be there."""
    graph = Graph({name: unwrap(node) for name, node in read_api_format(prompt).items()})
    session = open_session(read_config(compose_config([])))
    definitions = session.read_definitions({node.class_type for node in graph.values()})
    return write_ui_format(graph, definitions), prompt


def unwrap(node: Node) -> Node:
    """Return a node with its literal lists and mappings taken out of `__value__`."""
    inputs = {key: one[VALUE] if isinstance(one, dict) and VALUE in one else one for key, one in node.inputs.items()}
    return Node(node.name, node.class_type, inputs)


def export(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return workflow and prompt of the graph that the overrides declare."""
    read = read_config(compose_config(overrides))
    session = open_session(read)
    checked = session.check(read.graph, read.run.outputs, read.problems, needs_files=False)
    definitions = session.read_definitions({node.class_type for node in checked.shown.values()})
    return write_ui_format(checked.shown, definitions), write_api_format(checked.graph)


def main() -> None:
    """Open the graphs and exit with status 1 if one differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gui", type=Path, help="the folder `static` of comfyui-frontend-package")
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--prompts", type=Path, nargs="*", default=[], help="files in API format, instead of configs")
    parser.add_argument("--browser", default="chromium")
    parser.add_argument("--shots", type=Path, help="a folder for pictures of the pages")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with run_server(folder, args.gui.resolve()) as address, run_browser(args.browser, folder) as port:
            good = asyncio.run(check(port, address, args))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

"""The other harnesses' own code, from source trees at their commits (make.py)."""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib
import io
import json
import pickle
import re
import sys
import tempfile
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Scores = list[float | None]
#: Scores of the answers by protocol, and metrics by protocol.
Found = tuple[dict[str, Scores], dict[str, dict[str, float]]]


class Lmms:
    """lmms-eval's path behind the model."""

    def __init__(self, tree: Path) -> None:
        sys.path.insert(0, str(tree))
        self.tasks = tree / "lmms_eval" / "tasks"
        self.utils = importlib.import_module("lmms_eval.utils")
        self.task = importlib.import_module("lmms_eval.api.task").ConfigurableTask
        self.reasoning = importlib.import_module("lmms_eval.api.reasoning")
        self.filters = importlib.import_module("lmms_eval.filters")
        self.registry = importlib.import_module("lmms_eval.api.registry")
        importlib.import_module("lmms_eval.api.metrics")
        source = (tree / "lmms_eval" / "__main__.py").read_text()
        default = re.search(r'"--reasoning_tags",\s*type=str,\s*default=\'(.*?)\'', source)
        assert default is not None
        self.tags = json.loads(default[1])

    def results(
        self, file: str, docs: Sequence[Mapping[str, Any]], texts: Sequence[str], gold: Callable[[Any], Any]
    ) -> list[Any]:
        """What process_results makes of each answer."""
        config = self.utils.load_yaml_config(str(self.tasks / file))
        metrics = {m["metric"]: self.registry.METRIC_REGISTRY.get(m["metric"]) for m in config["metric_list"]}
        extra = {
            m["metric"]: {
                k: v for k, v in m.items() if k not in ("metric", "aggregation", "higher_is_better")
            }
            for m in config["metric_list"]
        }
        task = types.SimpleNamespace(
            OUTPUT_TYPE=config["output_type"],
            config=types.SimpleNamespace(process_results=config.get("process_results"), doc_to_choice=None),
            multiple_target=config["task"] in ("docvqa_val", "infovqa_val"),
            doc_to_target=gold,
            _metric_fn_list=metrics,
            _metric_fn_kwargs=extra,
        )
        chain = config.get("filter_list") or [{"filter": [{"function": "take_first"}]}]
        parts = [
            [part["function"], {k: v for k, v in part.items() if k != "function"} or None]
            for part in chain[0]["filter"]
        ]
        ensemble = self.filters.build_filter_ensemble("f", parts)
        instances = [types.SimpleNamespace(resps=[text], filtered_resps={}) for text in texts]
        ensemble.apply(instances, docs)
        found = []
        for doc, instance in zip(docs, instances, strict=True):
            filtered = instance.filtered_resps["f"]
            assert isinstance(filtered, str)
            stripped = self.reasoning.strip_reasoning_tags(filtered, self.tags)
            found.append(self.task.process_results.__wrapped__(task, copy.deepcopy(doc), [stripped]))
        return found


class Vlm:
    """VLMEvalKit's `evaluate` without a judge."""

    def __init__(self, tree: Path) -> None:
        sys.path.insert(0, str(tree))
        for name in ("vlmeval", "vlmeval.dataset", "vlmeval.dataset.utils"):
            # the packages' own __init__ would import every model and data set
            module = types.ModuleType(name)
            module.__path__ = [str(tree / name.replace(".", "/"))]
            module.__dict__.update(build_judge=None, DEBUG_MESSAGE="")
            sys.modules[name] = module
        self.mcq = importlib.import_module("vlmeval.dataset.image_mcq")
        self.vqa = importlib.import_module("vlmeval.dataset.image_vqa")
        self.rules = importlib.import_module("vlmeval.dataset.utils.multiple_choice")
        self.vqa_eval = importlib.import_module("vlmeval.dataset.utils.vqa_eval")
        self.mathvista = importlib.import_module("vlmeval.dataset.utils.mathvista")

    def choices(
        self, kind: str, name: str, rows: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Mapping[str, Any]], Any]:
        """Rows with `hit`, and the table that `evaluate` returns."""
        import pandas

        table = pandas.DataFrame(rows)
        data = getattr(self.mcq, kind).__new__(getattr(self.mcq, kind))
        data.data, data.dataset_name = table, name
        with tempfile.TemporaryDirectory() as folder:
            file = f"{folder}/p.pkl"
            Path(file).write_bytes(pickle.dumps(table))
            self.rules.get_pred_file_format = lambda: "pkl"
            self.mcq.get_intermediate_file_path = lambda path, suffix, fmt=None: path.replace(
                ".pkl", f"{suffix}.pkl"
            )
            accuracy = data.evaluate(file, model="exact_matching", nproc=1)
            stored = pickle.loads(Path(f"{folder}/p_exact_matching_result.pkl").read_bytes())
        return stored, accuracy

    def answers(self, method: str, name: str, rows: Sequence[Mapping[str, Any]]) -> Scores:
        """What ImageVQADataset.evaluate scores line by line (it does so in a pool of processes)."""
        lines = [self.vqa_eval.process_line(row, method=method) for row in rows]
        return [float(value) for value in self.vqa_eval.hit_calculate(lines, name)]


def internvl_functions(file: Path, *names: str) -> list[Any]:
    """Functions of a script, which is not imported: that would ask for torch.distributed and weights."""
    tree = ast.parse(file.read_text())
    kept = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name in names]
    space: dict[str, Any] = {"re": re, "json": json, "Optional": Any}
    exec(compile(ast.Module(kept, []), str(file), "exec"), space)
    return [space[name] for name in names]


def alone(score: Callable[[], Any]) -> float | None:
    """One score; None where the harness stops with an error."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return float(score())
    except Exception:
        return None


def mean(values: Sequence[float | None]) -> float:
    """Percent of what was scored."""
    known = [value for value in values if value is not None]
    return 100 * sum(known) / len(known)

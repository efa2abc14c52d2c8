"""Where it lands: a folder per step, written once and whole; its metrics, checkpoint and lock. No torch at import."""

from .asked import ASKED, Asked, asked, guarded, labels, records
from .compact import pack, read_state, unpack
from .conditions import commit, conditions, cpu
from .files import checksum, folder_to_write, read_tensors, to_write, write_file, write_json, write_tensors, writing
from .remote import Remote, Store, Unreached, usual_folder
from .state import State
from .step import CHECKPOINT, ENV, METRICS, RESULT, SPEC, WEIGHTS, Step, Work, read_lines
from .store import Runs, lock
from .times import TIMES, keep_times

__all__ = [
    "ASKED", "CHECKPOINT", "ENV", "METRICS", "RESULT", "SPEC", "TIMES", "WEIGHTS", "Asked", "Remote", "Runs", "State",
    "Step", "Store", "Unreached", "Work", "asked", "checksum", "commit", "conditions", "cpu", "folder_to_write",
    "guarded", "keep_times", "labels", "lock", "pack", "read_lines", "read_state", "read_tensors", "records",
    "to_write", "unpack", "usual_folder", "write_file", "write_json", "write_tensors", "writing",
]  # fmt: skip

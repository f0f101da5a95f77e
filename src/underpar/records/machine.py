"""Which machine a run was on, from its environment: what identifies it, and what class it belongs to."""

import hashlib
import json
from typing import Any

CLASS_KEYS = ("gpu", "gpu_count", "gpus", "cpu", "cores", "host_memory_bytes", "cuda", "torch", "attention_backend")
"""What a time depends on. Of each GPU its name, memory, power limit, highest clock and driver."""


def machine_class(environment: dict[str, Any]) -> str:
    """12 hex digits: equal for machines that may be taken for each other."""
    facts = {key: environment.get(key) for key in CLASS_KEYS} | {"packages": environment.get("packages")}
    return _digest(facts)


def machine_name(environment: dict[str, Any]) -> str:
    """The recorded name of the machine; its class where an older run recorded none."""
    return str(environment.get("machine") or machine_class(environment))


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]

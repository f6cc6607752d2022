"""Which field is meant by a name that is not a field: a typo, another spelling, or the name in another framework."""

from collections.abc import Iterator, Sequence
from functools import cache

from seele_operator.api.types import nearest
from seele_operator.validation.schema import Schema, run_schema

Path = tuple[str | int, ...]

FOREIGN_NAMES = {
    "model.name": "baseModel modelId modelName modelNameOrPath modelPath pretrainedModel",
    "model.dtype": "bf16 fp16 mixedPrecision precision torchDtype",
    "model.contextLength": "maxLength maxSeqLen maxSeqLength maxSequenceLength",
    "dataset.name": "datasetId datasetName",
    "dataset.path": "dataFiles dataPath file trainFile trainFiles",
    "dataset.maxPromptTokens": "maxPromptLength",
    "training.strategy": "advEstimator algo algorithm lossType",
    "training.steps": "epochs iterations maxSteps numEpochs numSteps numTrainEpochs totalEpochs totalTrainingSteps",
    "training.problemsPerStep": "batchSize globalBatchSize perDeviceTrainBatchSize rolloutBatchSize trainBatchSize",
    "training.problemsPerUpdate": "miniBatchSize ppoMiniBatchSize",
    "training.tokensPerMicroBatch": (
        "gradientAccumulationSteps microBatchSize microBatchSizePerGpu ppoMaxTokenLenPerGpu ppoMicroBatchSize "
        "ppoMicroBatchSizePerGpu"
    ),
    "training.learningRate": "actorLearningRate lr",
    "training.learningRateSchedule": "lrSchedule lrScheduler lrSchedulerType",
    "training.warmupUpdates": "lrWarmupSteps lrWarmupStepsRatio numWarmupSteps warmup warmupRatio warmupSteps",
    "training.adamBetas": "adamBeta1 adamBeta2 betas",
    "training.maxGradientNorm": "gradClip gradientClipping maxGradNorm",
    "training.clipEpsilon": "clipRange clipRatio epsilon epsilonHigh",
    "training.klCoefficient": "beta initKlCoef kl klBeta klCoef klCoeff klLossCoef",
    "training.hintLossCoefficient": "gamma",
    "hints.rolloutsPerRound": "generations groupSize n nSamplesPerPrompt numGenerations numRollouts rollouts",
    "trainer.replicas": "nnodes nodes numMachines numNodes",
    "trainer.processesPerReplica": "gpus nGpusPerNode nprocPerNode numGpus numProcesses",
    "rollout.tensorParallelSize": "tensorModelParallelSize tp tpSize vllmTensorParallelSize",
    "rollout.maxModelLen": "maxModelLength vllmMaxModelLength",
    "rollout.maxCompletionTokens": "maxCompletionLength maxNewTokens maxResponseLength maxTokens responseLength",
    "rollout.engineArgs": "enforceEager gpuMemoryUtilization vllmGpuMemoryUtilization",
    "verifier.method": "rewardFunc rewardFuncs rewardFunction rewardModel",
    "evaluation.benchmarks": "evalData evalDataset testData valFiles",
    "evaluation.everySteps": "evalInterval evalSteps testFreq",
    "checkpoints.everySteps": "checkpointInterval saveFreq saveSteps",
    "checkpoints.keep": "maxCheckpoints saveTotalLimit",
    "observability.wandb": "reportTo wandbProject",
    "storage.run": "outputDir outputPath savePath",
}
"""Names in TRL, verl, OpenRLHF and similar frameworks, by the field that sets the same thing here."""


def field_schema(path: Sequence[str | int]) -> Schema:
    """The structural schema of a field by its path from the root of a SeeleRun; empty if there is no such field."""
    schema = run_schema()
    for part in path:
        if isinstance(part, int):
            schema = schema.get("items", {})
        elif "properties" in schema:
            schema = schema["properties"].get(part, {})
        else:
            schema = schema.get("additionalProperties", {})
    return schema


def meant_fields(path: Path) -> list[Path]:
    """The fields that an unknown name at the end of `path` may stand for, by its spelling or in another framework."""
    *section, name = path
    known = {_plain(field): field for field in field_schema(section).get("properties", {})}
    plain = _plain(str(name))
    near = known.get(plain) or (None if plain in _foreign() else nearest(str(name), list(known.values())))
    if near is not None:
        return [(*section, near)]
    return [_foreign()[plain]] if plain in _foreign() else _places().get(plain, [])


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


@cache
def _foreign() -> dict[str, Path]:
    return {
        _plain(name): ("spec", *field.split(".")) for field, names in FOREIGN_NAMES.items() for name in names.split()
    }


@cache
def _places() -> dict[str, list[Path]]:
    """The fields of a SeeleRun outside of lists by their names, without capitals."""

    def fields(schema: Schema, path: Path) -> Iterator[Path]:
        for name, inner in schema.get("properties", {}).items():
            yield (*path, name)
            yield from fields(inner, (*path, name))

    places: dict[str, list[Path]] = {}
    for path in fields(run_schema()["properties"]["spec"], ("spec",)):
        places.setdefault(_plain(str(path[-1])), []).append(path)
    return places

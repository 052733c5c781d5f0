"""What settings may say: every choice by its name, with what it means."""

from enum import StrEnum

from fl_rsna.task import Rendering


class ModelName(StrEnum):
    """Network architectures; b0..b7 from efficientnet-pytorch, lite0..lite2 from efficientnet-lite-pytorch."""

    efficientnet_b0 = "efficientnet_b0"
    efficientnet_b1 = "efficientnet_b1"
    efficientnet_b2 = "efficientnet_b2"
    efficientnet_b3 = "efficientnet_b3"
    efficientnet_b4 = "efficientnet_b4"
    efficientnet_b5 = "efficientnet_b5"
    efficientnet_b6 = "efficientnet_b6"
    efficientnet_b7 = "efficientnet_b7"
    efficientnet_lite0 = "efficientnet_lite0"
    efficientnet_lite1 = "efficientnet_lite1"
    efficientnet_lite2 = "efficientnet_lite2"
    timm = "timm"  # the one that model.backbone names


class Window(StrEnum):
    """What turns Hounsfield units into the network's three channels."""

    fixed = "fixed"  # the windows of imaging/dicom/hounsfield.py
    learned = "learned"  # starts as those; trained with the network and averaged
    personal = "personal"  # the same, but each site keeps its own, for its scanner; others get the sites' mean


class Crop(StrEnum):
    """Which part of an image the network sees."""

    none = "none"  # all of it
    head = "head"  # a square around the head, the same for all slices of a series
    lungs = "lungs"  # of a radiograph, a square around the lung field, which a rule finds that sees no annotation
    boxes_leaky = (
        "boxes_leaky"  # of a radiograph, a square around what readers marked; says the label, only to measure that
    )

    @property
    def shows_truth(self) -> bool:
        """Whether annotations decide what is seen, which no patient's film has: scores are too high."""
        return self is Crop.boxes_leaky


class Stage(StrEnum):
    """What is trained: a model of single slices, one of whole series on top of it, or both in turn."""

    slice = "slice"
    sequence = "sequence"  # a head over the series, on the features of a slice model that is there already
    both = "both"  # the slice model first, in <run>/slice, then the head on it
    stacking = "stacking"  # a slice model a fold, then a second model on what each says of patients it never saw


class HeadName(StrEnum):
    """What looks along a series."""

    gru = "gru"  # a bidirectional GRU
    transformer = "transformer"
    cnn = "cnn"  # convolutions over neighbouring slices


class Norm(StrEnum):
    """What federation does to BatchNorm's running statistics."""

    average = "average"  # trained at the sites, averaged like weights
    local = "local"  # FedBN: each site keeps its own, with scale and shift; others get the sites' mean
    local_stats = "local_stats"  # SiloBN: each site keeps its own statistics; others get the sites' mean
    frozen = "frozen"  # kept as initialised; only scale and shift are trained
    adapted = "adapted"  # round 1 re-estimates them on the sites' slices without training; frozen from then on
    group = "group"  # GroupNorm instead: there are none


class Trainable(StrEnum):
    """Which weights a site trains."""

    all = "all"
    head = "head"  # the last linear layer on fixed features


class StrategyName(StrEnum):
    """Strategies; papers and equations are in federation/rules/server_rules.py and learning/training/local_rules.py."""

    fedavg = "fedavg"
    fedavgm = "fedavgm"
    fedadagrad = "fedadagrad"
    fedadam = "fedadam"
    fedyogi = "fedyogi"
    fedmedian = "fedmedian"
    fedtrimmedavg = "fedtrimmedavg"
    krum = "krum"
    multikrum = "multikrum"
    bulyan = "bulyan"
    qfedavg = "qfedavg"
    fedprox = "fedprox"
    scaffold = "scaffold"
    fednova = "fednova"
    feddyn = "feddyn"
    moon = "moon"
    ditto = "ditto"
    fedavg_logit_adjusted = "fedavg_logit_adjusted"


class Lost(StrEnum):
    """What a round does about a site that its message did not reach, or that went away before it answered."""

    go_on = "go_on"  # with the others, if they are a quorum
    wait = "wait"  # until it is back or strategy.timeout_s is over, and ask it again


class Weighting(StrEnum):
    """How much a site counts in a mean."""

    examples = "examples"  # by its training slices
    equal = "equal"


class Averaging(StrEnum):
    """Which mean over rounds is the model that is validated, tested and kept; sites always train from the last one."""

    none = "none"
    ema = "ema"  # exponential, by strategy.ema_decay
    window = "window"  # of the last strategy.window rounds


class Optimizer(StrEnum):
    """What a site trains with; made anew in every round."""

    adamw = "adamw"
    sgd = "sgd"


class EngineName(StrEnum):
    """What runs the sites: of a simulation, or machines of their own."""

    local = "local"
    ray = "ray"
    deployment = "deployment"  # Flower's SuperLink and SuperNodes; said by the server, never by words


class PrepareEngine(StrEnum):
    """What converts files."""

    local = "local"  # processes on this machine
    ray = "ray"  # a Ray cluster whose machines share a file system


class Device(StrEnum):
    """Where sites train; auto takes CUDA when there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Loss(StrEnum):
    """What is minimised of each label."""

    bce = "bce"  # cross-entropy
    focal = "focal"  # less of it where the model is nearly right; its probabilities are not to be believed


class Sampling(StrEnum):
    """Which training slices a pass over a site's data holds."""

    all = "all"  # every one, once
    under = "under"  # all with the union label, and a share of the others, drawn anew
    weighted = "weighted"  # as many as there are, drawn anew with replacement: rare labels more often


class Correction(StrEnum):
    """What is done about probabilities that a sampled pass distorts."""

    prior = "prior"  # they are led back to the share of positives that all slices have
    none = "none"  # nothing, to see the harm


class LabelWeights(StrEnum):
    """How much each label counts in the training loss."""

    task = "task"  # as in the task's metric: of RSNA's labels, any counts twice
    prevalence = (
        "prevalence"  # that, times 1 over the root of its share over all sites; classes get it back in their logits
    )


class Schedule(StrEnum):
    """How a learning rate goes from round to round."""

    constant = "constant"
    cosine = "cosine"  # down to nearly 0 in the last round


class Precision(StrEnum):
    """How a value travels."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"
    int8 = "int8"  # up only: a scale a thousand values, and what is lost is added to the next round's change


class Keep(StrEnum):
    """Which rounds' models and site memories a run folder keeps."""

    all = "all"  # any site's part in any round can be repeated: python -m fl_rsna.replay
    last = "last"  # what going on after a kill needs


class Stacker(StrEnum):
    """The second model of stage=stacking."""

    xgboost = "xgboost"  # boosted trees, one set a label
    cnn = "cnn"  # convolutions over a series' logits, of sequence.width and so on, trained as any network


class Boosting(StrEnum):
    """How boosted trees are federated, each by Flower's strategy of that name."""

    bagging = "bagging"  # a round adds one tree of every site, at its share of the learning rate
    cyclic = "cyclic"  # a round adds one tree of one site; sites take turns


class Baseline(StrEnum):
    """What to compare a federation with."""

    none = "none"  # the federation itself
    central = "central"  # all sites' data pooled in one place: the ceiling
    local = "local"  # each site alone
    gap = "gap"  # all three, and the gap between them


class Select(StrEnum):
    """Which round's global model is final."""

    best = "best"  # lowest validation loss over the sites' own validation parts
    last = "last"


class PartitionKind(StrEnum):
    """How patients are dealt to sites."""

    iid = "iid"
    dirichlet = "dirichlet"
    quantity = "quantity"
    specialist = "specialist"
    scanner = "scanner"
    origin = "origin"
    explicit = "explicit"
    shards = "shards"


class Group(StrEnum):
    """What is dealt as one piece. Anything below a patient lets one patient be in two places: for reproduction only."""

    patient = "patient"
    series = "series"
    slice = "slice"

    @property
    def plural(self) -> str:
        return "series" if self is Group.series else f"{self}s"


class Layout(StrEnum):
    """What a cohort's folder holds beside the sites' folders."""

    standard = "standard"
    s0 = "s0"


class ImageKind(StrEnum):
    """What a prepared PNG holds."""

    hu = "hu"  # one 16-bit channel, HU + 1024
    windows = "windows"  # three 8-bit channels: brain, subdural, soft tissue in R, G, B
    grey = "grey"  # one 16-bit channel of a radiograph, 0 black to 65535 white


def kinds_of(rendering: Rendering) -> tuple[ImageKind, ...]:
    """What images of this rendering can be stored as, the usual one first."""
    match rendering:
        case Rendering.hounsfield:
            return ImageKind.hu, ImageKind.windows
        case Rendering.radiograph:
            return (ImageKind.grey,)

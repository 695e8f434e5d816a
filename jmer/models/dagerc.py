"""DAG-ERC: a directed acyclic graph network over a conversation (Shen et al., 2021), and early fusion as in MultiDAG.

Flow of one batch: features, one modality or several side by side → layers along the speakers' graph
(`jmer.layers.dag`) → concatenated states of all layers and features → multilayer perceptron → emotion. The loss is the
cross-entropy.
"""

from flax import linen as nn

from jmer.batch import Batch
from jmer.layers.dag import KERNELS, DAGEncoder, predecessor_graph
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import SCHEMES, dense
from jmer.models.checks import check_at_least_one, check_choice, check_modalities, check_no_frames, check_rates
from jmer.models.classification import ClassifierOutput, CrossEntropyLoss
from jmer.models.inputs import side_by_side
from jmer.models.spec import ModelSpec
from jmer.models.variants import MODALITY_SUBSETS

SLOPES = {"linear": 1.0, "leaky_relu": 0.01}
"""How predecessors are scored -> slope of a score below zero."""


DAGERCOutput = ClassifierOutput
"""The output of DAG-ERC for a batch."""

DAGERCLoss = CrossEntropyLoss
"""The loss of DAG-ERC."""


class DAGERC(nn.Module):
    """The network of DAG-ERC; with several modalities, that of MultiDAG.

    Attributes:
      num_classes: `C`.
      modalities: those that the model uses, any non-empty subset of text, audio, visual; concatenated in that order,
        with zeros where an utterance lacks one.
      d_h: width of the layers, in the graph and after it.
      dag_layers: layers of the graph network: 4 on IEMOCAP, 2 on MELD.
      dag_kernel: what a TPU runs for the graph network, `auto` or `pallas`, see `jmer.layers.dag.DAGLayer`.
      omega: ω of the graph, the number of the speaker's last utterances that it links back to.
      score: how predecessors are scored: `linear` (as the authors' code does: an utterance's own part cancels in the
        softmax) or `leaky_relu` (it does not).
      mlp_layers: hidden layers between the graph's states and the last linear layer.
      dropout_rate: rate before the last linear layer.
      initialization: of the parameters, a name in `jmer.layers.initializers.SCHEMES`.
    """

    num_classes: int
    modalities: tuple[str, ...] = ("text",)
    d_h: int = 300
    dag_layers: int = 4
    dag_kernel: str = "auto"
    omega: int = 1
    score: str = "linear"
    mlp_layers: int = 2
    dropout_rate: float = 0.2
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> DAGERCOutput:
        """Predicts every utterance's emotion from it and what was said before it.

        Args:
          batch: see `jmer.batch.Batch`; features of other modalities than the model's are ignored.
          train: whether dropout is on; needs the random stream `dropout` then.

        Raises:
          ValueError: for an option that has no such value, or a batch with frames.
        """
        self.check()
        check_no_frames(batch, "DAG-ERC")
        graph = predecessor_graph(batch.speakers, batch.mask, window=self.omega, segments=batch.segments)
        options = SCHEMES[self.initialization]
        # The graph network ends in the first hidden layer.
        encoder = DAGEncoder(
            self.d_h,
            self.d_h,
            self.dag_layers,
            negative_slope=SLOPES[self.score],
            kernel=self.dag_kernel,
            name="graph",
            **options,
        )
        hidden = encoder(side_by_side(batch, self.modalities), *graph)
        for layer in range(1, self.mlp_layers):
            hidden = nn.relu(dense(self.d_h, self.d_h, name=f"hidden_{layer}", **options)(hidden))
        hidden = ConversationDropout(self.dropout_rate)(hidden, train=train, row_ids=batch.row_ids)
        return DAGERCOutput(dense(self.num_classes, self.d_h, name="classifier", **options)(hidden))

    def check(self) -> None:
        """Raises ValueError if an option has no such value."""
        check_modalities(self.modalities)
        check_choice("score", self.score, tuple(SLOPES))
        check_choice("dag_kernel", self.dag_kernel, KERNELS)
        check_choice("initialization", self.initialization, SCHEMES)
        check_at_least_one(self, "d_h", "dag_layers", "omega", "mlp_layers")
        check_rates(self, "dropout_rate")


SPEC = ModelSpec(
    name="dagerc",
    module=DAGERC,
    loss=DAGERCLoss,
    packing=True,
    handles_missing=True,
    bfloat16=True,
    variants={
        # Trains in seconds; its scores mean nothing.
        "tiny": {"model.d_h": 16, "training.epochs": 2, "curriculum.measure": "none"},
        # For sentence embeddings and acoustic statistics that were not fine-tuned for emotion.
        "plain_features": {
            "model.d_h": 128,
            "model.dag_layers": 2,
            "model.dropout_rate": 0.2,
            "optimizer.learning_rate": 1e-3,
            "optimizer.weight_decay": 0.1,
            "training.batch_size": 8,
            "training.epochs": 20,
        },
        **MODALITY_SUBSETS,
        # MultiDAG's input: all modalities of the corpus, concatenated.
        "all_modalities": {"model.modalities": ()},
        # Attention scores that depend on the utterance itself, see `DAGERC.score`.
        "leaky_relu": {"model.score": "leaky_relu"},
    },
)

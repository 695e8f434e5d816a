"""DialogueGCN: its authors' code and the other public implementation."""

from golden import Adapter, linear, stacked_recurrent


def sections(golden):
    params, positional = golden.params, "edge_attention_positional" in golden.params
    nodal = ("tanh_query" if positional else "key") if "nodal_attention/kernel" in params else "none"
    bases, _, d_h1 = params["relational/basis"].shape
    model = {
        "d_rnn": params["encoder_lstm/layer0/forward/recurrent_kernel"].shape[0],
        "edge_attention": "positional" if positional else "bilinear",
        "nodal_attention": nodal,
        "window_past": golden.setting("window_past"),
        "window_future": golden.setting("window_future"),
        "speakers": golden.setting("num_speakers"),
        "num_bases": bases,
        "d_h1": d_h1,
        "d_h2": params["graph/root_kernel"].shape[1],
        "d_hidden": params["hidden/kernel"].shape[1],
    }
    if positional:
        model["max_positions"] = len(params["edge_attention_positional"])
    return model, {"class_weight_values": tuple(golden["class_weights"].tolist())}


def parameters(params):
    edges = "edge_attention_positional" if "edge_attention_positional" in params else "edge_attention"
    tree = {
        "encoder": stacked_recurrent(params, "encoder_lstm"),
        "edge_attention": params[edges],
        "relational": {name: params[f"relational/{name}"] for name in ("basis", "coefficients", "root", "bias")},
        "graph_neighbour": {"kernel": params["graph/neighbour_kernel"]},
        "graph_root": linear(params, "graph/root_"),
        "hidden": linear(params, "hidden/"),
        "classifier": linear(params, "classifier/"),
    }
    nodal = linear(params, "nodal_attention/")
    return tree | ({"nodal_attention": nodal} if nodal else {})


ADAPTER = Adapter(
    model="dialoguegcn",
    recognises=lambda golden: "relational/basis" in golden.params,
    sections=sections,
    parameters=parameters,
    losses={"loss_unweighted": {"class_weight_values": ()}},
    # The authors' code leaves a weight of 1e-10 where there is no edge.
    tolerance=lambda golden: 1e-8 if "edge_attention_positional" in golden.params else 1e-10,
)

"""Where the processes of a run meet, and which GPUs each takes, from flags and from what launchers tell."""

import http.server
import threading

import pytest

from jmer.cli import cluster, tpu_hosts
from jmer.cli.cluster import find_cluster
from jmer.cli.flags import add_process_flags
from jmer.cli.local_devices import local_devices
from jmer.command import Parser
from jmer.errors import UserError

# As srun of SLURM 22.05 and mpirun of Open MPI 4.1.8 and 5.0.11 set them.
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_PROCID": "6",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "2",
}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
MPI_4 = MPI | {"OMPI_MCA_orte_hnp_uri": "1222115328.0;tcp://192.0.2.2,10.0.0.1:45425;tcp6://[fd00::2]:57711"}
MPI_5 = MPI | {"PMIX_NAMESPACE": "prterun-login-node-1-9137@1", "PMIX_SERVER_URI41": "prterun-x@0.0;tcp4://127.0.0.1:1"}
KUBEFLOW = {"JAX_COORDINATOR_ADDRESS": "job-0:6666", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2"}
TPU = {"TPU_WORKER_HOSTNAMES": "t0.svc,t1.svc", "TPU_WORKER_ID": "1"}
SLICES = TPU | {
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
    "MEGASCALE_COORDINATOR_ADDRESS": "first.svc:8080",
}


def options(*arguments):
    parser = Parser()
    add_process_flags(parser)
    return parser.parse_args(arguments)


def found(environment, *arguments):
    it = find_cluster(options(*arguments), environment)
    return it.coordinator, it.processes, it.process


@pytest.mark.parametrize(
    ("environment", "coordinator", "processes", "process"),
    [
        (SLURM, "node07:62055", 8, 6),
        (SLURM | {"SLURM_STEP_ID": "1"}, "node07:63064", 8, 6),
        (SLURM | {"JAX_COORDINATOR_PORT": "5555"}, "node07:5555", 8, 6),
        (MPI_4, "192.0.2.2:61511", 4, 3),
        (MPI_4 | {"OMPI_MCA_orte_hnp_uri": "4096.0;tcp6://[fd00::2]:57711"}, "[fd00::2]:64279", 4, 3),
        (MPI_5, "login-node-1:64610", 4, 3),
        (MPI_5 | {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, "127.0.0.1:64610", 4, 3),
        (MPI_5 | SLURM, "login-node-1:64610", 4, 3),
        (KUBEFLOW, "job-0:6666", 3, 2),
        (KUBEFLOW | {"JAX_COORDINATOR_ADDRESS": "job-0", "JAX_COORDINATOR_PORT": "1234"}, "job-0:1234", 3, 2),
        (TPU, "t0.svc:8482", 2, 1),
        (SLICES, "first.svc:8482", 4, 3),
    ],
)
def test_launchers_tell_where_processes_meet(environment, coordinator, processes, process):
    assert found(environment, "--coordinator=auto") == (coordinator, processes, process)


def test_a_pod_of_an_indexed_job_finds_the_first_one(monkeypatch):
    monkeypatch.setattr(cluster.socket, "getfqdn", lambda: "jmer-train-0-1.jmer.ns.svc.cluster.local")
    environment = {"JOB_COMPLETION_INDEX": "1", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    expected = "jmer-train-0-0.jmer.ns.svc.cluster.local:55527", 2, 1
    assert found(environment, "--coordinator=auto", "--processes=2") == expected
    assert found(environment | {"JAX_NUM_PROCESSES": "2"}, "--coordinator=auto") == expected
    with pytest.raises(UserError, match=r"does not tell how many processes there are: add --processes"):
        found(environment, "--coordinator=auto")
    monkeypatch.setattr(cluster.socket, "getfqdn", lambda: "jmer-train-0-1")
    with pytest.raises(UserError, match=r"give the job a headless service"):
        found(environment, "--coordinator=auto", "--processes=2")


def test_flags_come_before_what_the_launcher_tells():
    assert found(SLURM, "--coordinator=a:1", "--processes=3", "--process=2") == ("a:1", 3, 2)
    assert found(MPI, "--coordinator=a:1") == ("a:1", 4, 3)
    assert find_cluster(options(), SLURM) is None


@pytest.mark.parametrize(
    ("environment", "arguments", "message"),
    [
        (MPI, ["--coordinator=auto"], "--processes $OMPI_COMM_WORLD_SIZE --process $OMPI_COMM_WORLD_RANK"),
        (
            {"PMI_SIZE": "2", "PMI_RANK": "0"},
            ["--coordinator=auto"],
            "give --coordinator HOST:PORT --processes $PMI_SIZE --process $PMI_RANK",
        ),
        (
            {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"},
            ["--coordinator=auto"],
            "put srun before the command",
        ),
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, ["--coordinator=auto"], "set JAX_NUM_PROCESSES and JAX_PROCESS_ID too"),
        (SLURM | {"SLURM_PROCID": "x"}, ["--coordinator=auto"], "the environment has SLURM_PROCID=x"),
        ({}, ["--coordinator=a:1", "--processes=2"], "several processes need --coordinator, --processes"),
        ({}, ["--coordinator=auto", "--processes=2"], "there is no launcher that jmer knows"),
        ({}, ["--process=0"], "several processes need --coordinator"),
        ({}, ["--local-devices=0"], "several processes need --coordinator"),
        (KUBEFLOW, ["--coordinator=auto", "--process=3"], "--process is 3, but the 3 processes are numbered from 0"),
        ({}, ["--coordinator=a:1", "--local-devices=0,x"], "--local-devices: '0,x' is no list of different indices"),
        ({}, ["--coordinator=a:1", "--local-devices=1,1"], "'1,1' is no list of different indices"),
        ({}, ["--coordinator=a:1", "--start-timeout=0"], "--start-timeout: '0' is no number of seconds"),
    ],
)
def test_what_lacks_is_named_in_a_line(environment, arguments, message):
    with pytest.raises(UserError) as raised:
        found(environment, *arguments)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_timeouts_are_taken():
    flags = ["--coordinator=a:1", "--processes=2", "--process=0", "--start-timeout=60", "--heartbeat-timeout=20"]
    it = find_cluster(options(*flags), {})
    assert (it.start_timeout, it.heartbeat_timeout) == (60, 20)
    assert find_cluster(options(*flags[:3]), {}).start_timeout == 300


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        # Four processes on a machine, of which each sees all four GPUs: one each.
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_GPUS_ON_NODE": "4"}, (2,)),
        ({"ROCR_VISIBLE_DEVICES": "0,1,2,3"}, (2,)),
        # Eight GPUs: two each.
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7", "SLURM_GPUS_ON_NODE": "8"}, (4, 5)),
        # --gpus-per-task=1 and =2: each process sees its own alone.
        ({"CUDA_VISIBLE_DEVICES": "2", "SLURM_GPUS_ON_NODE": "4"}, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_ON_NODE": "8"}, None),
        # One process for all the GPUs of a machine.
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_STEP_TASKS_PER_NODE": "4,1"}, None),
        # No GPU, or JAX's own variable.
        ({"CUDA_VISIBLE_DEVICES": ""}, None),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, None),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, None),
        ({}, None),
        ({"JAX_LOCAL_DEVICE_IDS": "3", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, None),
    ],
)
def test_a_process_takes_its_part_of_the_gpus(environment, expected, tmp_path):
    assert local_devices(SLURM | environment, tmp_path) == expected


def test_mpirun_divides_the_gpus_of_the_driver(tmp_path):
    for number in range(4):
        (tmp_path / f"0000:0{number}:00.0").mkdir()
    assert local_devices(MPI, tmp_path) == (2, 3)
    assert local_devices(MPI | {"CUDA_VISIBLE_DEVICES": "1"}, tmp_path) is None
    assert local_devices({}, tmp_path) is None


@pytest.mark.parametrize("visible", ["0,1,2", "0"])
def test_gpus_that_cannot_be_divided_are_refused(visible, tmp_path):
    environment = SLURM | {"CUDA_VISIBLE_DEVICES": visible, "SLURM_GPUS_ON_NODE": str(len(visible.split(",")))}
    with pytest.raises(UserError, match=r"4 processes of this machine cannot divide its \d GPUs evenly"):
        local_devices(environment, tmp_path)


def test_a_flag_names_the_gpus():
    flags = ["--coordinator=auto", "--local-devices=1,3"]
    assert find_cluster(options(*flags), SLURM | {"CUDA_VISIBLE_DEVICES": "0,1,2"}).local_devices == (1, 3)


@pytest.fixture
def metadata():
    """The metadata server of Google Cloud, with attributes of a machine."""
    attributes = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.removeprefix("/computeMetadata/v1/instance/attributes/")
            known = self.headers["Metadata-Flavor"] == "Google" and name in attributes
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(attributes.get(name, "?").encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield attributes, {"GCE_METADATA_IP": f"127.0.0.1:{server.server_port}", "http_proxy": "127.0.0.1:9"}
        server.shutdown()


def test_the_hosts_of_a_tpu_ask_the_metadata_server(metadata):
    attributes, environment = metadata
    with pytest.raises(UserError, match="there is no launcher that jmer knows"):
        found(environment, "--coordinator=auto")
    attributes |= {"agent-worker-number": "1", "worker-network-endpoints": "a:8470:10.0.0.2,b:8470:10.0.0.3"}
    assert found(environment, "--coordinator=auto") == ("10.0.0.2:8482", 2, 1)
    attributes |= {"worker-network-endpoints": "h0,h1", "tpu-env": "ZONE: 'x'\nMEGASCALE_NUM_SLICES: '2'\n"}
    attributes["tpu-env"] += "MEGASCALE_SLICE_ID: '1'\nMEGASCALE_COORDINATOR_ADDRESS: '10.0.0.9:8080'\n"
    assert found(environment, "--coordinator=auto") == ("10.0.0.9:8482", 4, 3)


def test_the_metadata_server_is_asked_only_where_there_are_chips(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(tpu_hosts, "_ask", lambda server, name: asked.append((server, name)) or "0")
    assert tpu_hosts.find_hosts({}, tmp_path) is None and not asked
    (tmp_path / "vfio").mkdir()
    (tmp_path / "vfio" / "vfio").touch()  # of any machine with virtual functions
    assert tpu_hosts.find_hosts({}, tmp_path) is None and not asked
    (tmp_path / "vfio" / "0").touch()
    assert tpu_hosts.find_hosts({}, tmp_path) == ("0", 1, 0)
    assert asked[0] == ("metadata.google.internal", "worker-network-endpoints")

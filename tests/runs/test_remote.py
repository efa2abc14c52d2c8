"""Steps in a store: what one machine has finished another fetches; what is half there, damaged or out of reach."""

import io
import json
import sys
import zipfile

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from makers import full, node

from prunery.runs import Remote, Runs, Store, Unreached
from prunery.spec import Refused

NAME = node().name


class Bucket(MemoryFileSystem):
    """Objects as s3fs shows them: no folders, one bucket, and a user who may be allowed less."""

    protocol = "s3"
    store, pseudo_dirs, forbidden = {}, [""], False

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + str(path).removeprefix("s3://").strip("/")

    def _looked_at(self, path):
        if self.forbidden:
            raise PermissionError("Forbidden")
        if not self._strip_protocol(path).startswith("/bucket"):
            raise FileNotFoundError("The specified bucket does not exist")

    def cat_file(self, path, **more):
        self._looked_at(path)
        return super().cat_file(path, **more)

    def pipe_file(self, path, value, **more):
        self._looked_at(path)
        super().pipe_file(path, value, **more)

    def makedirs(self, path, exist_ok=False):
        raise AssertionError("with s3fs this would make a bucket")

    mkdir = makedirs


@pytest.fixture
def bucket(monkeypatch):
    """s3:// without Amazon."""
    from fsspec.registry import _registry

    monkeypatch.setitem(_registry, "s3", Bucket)
    monkeypatch.setattr(Bucket, "store", {})
    return Bucket


@pytest.fixture(params=["file", "s3"])
def store(request, tmp_path, bucket):
    url = f"file://{tmp_path}/store" if request.param == "file" else "s3://bucket/runs"
    found = Store(url)
    found.begin()
    return found


@pytest.fixture
def machines(tmp_path, store):
    return Remote(tmp_path / "a", store), Remote(tmp_path / "b", store)


def never(work):
    raise AssertionError("it was made twice")


def contents(step):
    return {p.name: p.read_bytes() for p in step.folder.iterdir()}


def objects(store):
    return sorted(path[len(store.root) + 1 :] for path in store.files.find(store.root))


def failing(store, monkeypatch, after):
    """The store goes out of reach once so many objects are written."""
    left, write = [after], store.write

    def written(name, data):
        if not left[0]:
            raise Unreached("the cable was pulled")
        left[0] -= 1
        write(name, data)

    monkeypatch.setattr(store, "write", written)


def test_what_one_machine_has_finished_another_fetches(machines, store):
    a, b = machines
    made = a.once(node(), full)
    assert store.steps() == a.there([NAME, "train-0"]) == {NAME}
    fetched = b.once(node(), never)
    assert contents(fetched) == contents(made)
    assert {"spec.toml", "env.json", "weights.safetensors", "metrics.jsonl", "result.json"} <= set(contents(fetched))
    assert [o for o in objects(store) if ".work" in o or o.endswith("checkpoint.safetensors")] == []
    assert b.find(NAME[:6]).folder == b.root / NAME
    assert contents(Runs(b.root).find(NAME)) == contents(made)


@pytest.mark.parametrize("after", range(6))
def test_a_half_uploaded_step_does_not_count(after, machines, store, monkeypatch):
    """Whichever object is the last to arrive: the step is made again there, and uploaded later from here."""
    a, b = machines

    def small(work):
        work.result({"density": 1.0})
        work.log({"step": 1})

    with monkeypatch.context() as patched:
        failing(store, patched, after)
        if after < 5:
            with pytest.raises(Unreached):
                a.once(node(), small)
        else:
            a.once(node(), small)
    assert store.steps() == ({NAME} if after == 5 else set())
    if after < 5:
        with pytest.raises(Refused, match="is not finished"):
            b.fetch(NAME)
    assert a.once(node(), never).name == NAME
    assert contents(b.once(node(), never)) == contents(a.find(NAME))


def test_two_machines_that_make_one_step_never_mix_theirs(machines, store):
    """Both began before the other had finished; the first seal counts, and every file is the first's."""
    a, b = machines

    def second(work):
        work.result({"by": "b"})

    def first(work):
        b.once(node(), second)
        work.result({"by": "a"})

    assert a.once(node(), first).result == {"by": "a"}
    third = Remote(a.root.parent / "c", store).once(node(), never)
    assert contents(third) == contents(b.find(NAME))


@pytest.mark.parametrize("file", ["spec.toml", "env.json", "weights.safetensors", "metrics.jsonl", "result.json"])
@pytest.mark.parametrize("harm", ["a turned bit", "cut short", "gone"])
def test_damage_is_refused(file, harm, machines, store):
    a, b = machines
    a.once(node(), full)
    (there,) = [o for o in objects(store) if o.endswith(file)]
    data = bytearray(store.read(there))
    if harm == "gone":
        store.remove(there)
    else:
        data[len(data) // 2] ^= 1
        store.write(there, bytes(data) if harm == "a turned bit" else bytes(data[:-1]))
    with pytest.raises(Refused) as refused:
        b.once(node(), never)
    assert f"{store.url}/{there}" in str(refused.value)
    assert f"delete {store.url}/{NAME} to have the step made again" in str(refused.value)
    assert not b.path(node()).exists()


SEALS = ["", "[]", "{", '{"folder": "x"}', '{"folder": 3, "files": {}}', '{"folder": "..", "files": {}}',
         '{"folder": "x", "files": {"../../../outside": "00"}}', '{"folder": "x", "files": {"": "00"}}']  # fmt: skip


@pytest.mark.parametrize("seal", SEALS)
def test_a_seal_that_is_none_is_refused(seal, machines, store):
    store.write(f"{NAME}/sealed.json", seal.encode())
    with pytest.raises(Refused, match=r"sealed\.json is damaged; delete"):
        machines[1].once(node(), never)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def training(until, said=None):
    """Three steps of training; the machine is lost after `until` of them."""
    import torch

    def make(work):
        found = work.restore()
        begun = int(found[1]["step"]) if found else 0
        if said is not None:
            said.append((begun, [row["step"] for row in work.metrics()]))
        for step in range(begun + 1, 4):
            if step > until:
                work.log({"step": "lost"})
                raise KeyboardInterrupt
            work.log({"step": step})
            work.checkpoint({"w": torch.full((3,), float(step))}, {"step": step})
        work.result({"density": 1.0})

    return make


def test_another_machine_goes_on_from_the_last_checkpoint(machines, store):
    a, b = machines
    said = []
    with pytest.raises(KeyboardInterrupt):
        a.once(node(), training(2))
    assert store.steps() == set()
    with pytest.raises(KeyboardInterrupt):
        b.once(node(), training(2, said))
    step = b.once(node(), training(3, said))
    assert said == [(2, [1, 2])] * 2
    assert [row["step"] for row in step.metrics()] == [1, 2, 3]
    assert step.env["parts"] == 2
    assert contents(a.once(node(), never)) == contents(step)
    assert list((a.root / ".work").iterdir()) == []
    assert [o for o in objects(store) if ".work" in o] == []


def test_the_furthest_checkpoint_counts_wherever_it_is(machines, store, monkeypatch):
    """A machine that could not upload its last ones goes on from its own; the store's are older."""
    a, b = machines
    said, told = [], []
    with pytest.raises(KeyboardInterrupt):
        b.once(node(), training(1))
    with monkeypatch.context() as patched:
        failing(store, patched, 0)
        with pytest.raises(KeyboardInterrupt):
            a.once(node(), training(2, said), told.append)
    assert said == [(1, [1])]
    assert len(told) == 1
    assert "this checkpoint is on this machine only: the cable was pulled" in told[0]
    a.once(node(), training(3, said))
    assert said[-1] == (2, [1, 2])


def damaged(data, harm):
    if harm == "a turned bit":
        at = data.index(b'{"step": 1}')
        return data[:at] + b'{"step": 7}' + data[at + 11 :]
    if harm == "a file that it lacks":
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("metrics.jsonl", "")
        return out.getvalue()
    return data[:-1] if harm == "cut short" else b"no archive"


@pytest.mark.parametrize("harm", ["a turned bit", "cut short", "a file that it lacks", "something else"])
def test_a_damaged_checkpoint_is_refused(harm, machines, store):
    a, b = machines
    with pytest.raises(KeyboardInterrupt):
        a.once(node(), training(2))
    kept = f".work/{NAME}.zip"
    store.write(kept, damaged(store.read(kept), harm))
    with pytest.raises(Refused, match="is damaged; delete it to start the step again") as refused:
        b.once(node(), never)
    assert f"{store.url}/{kept}" in str(refused.value)


# --- out of reach -----------------------------------------------------------------------------------------------------

ADDRESSES = ["memory://runs", "ftp://host/runs", "s3://", "file://runs", "simplecache::s3://bucket", "s3:/bucket/runs"]


@pytest.mark.parametrize("url", ADDRESSES)
def test_an_address_that_is_no_store(url):
    with pytest.raises(Refused, match="expected s3://BUCKET"):
        Store(url)


@pytest.mark.parametrize(("kind", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("abfs", "adlfs")])
def test_a_package_that_is_missing(kind, package, monkeypatch):
    from fsspec.registry import _registry

    monkeypatch.delitem(_registry, kind, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Refused) as refused:
        Store(f"{kind}://bucket/runs")
    assert f"needs the package {package}, which is missing" in str(refused.value)
    assert f"install {package}: " in str(refused.value)


def test_a_bucket_that_is_not_there(bucket):
    with pytest.raises(Unreached, match=r"s3://other/runs/prunery\.json .*\(FileNotFoundError: The specified bucket"):
        Store("s3://other/runs").begin()


def test_a_bucket_that_says_no(bucket, monkeypatch):
    store = Store("s3://bucket/runs")
    monkeypatch.setattr(Bucket, "forbidden", True)
    with pytest.raises(
        Unreached, match=r"\(PermissionError: Forbidden\); expected a bucket .* leave to read and write"
    ):
        store.begin()


def test_a_folder_of_the_same_name_is_not_the_store(tmp_path):
    with pytest.raises(Refused, match="expected one that all machines share"):
        Store(f"file://{tmp_path}").joined()


def test_a_name_that_could_be_several(machines, store):
    a, b = machines
    a.once(node(0), full)
    b.once(node(1), full)
    with pytest.raises(Refused, match="could be init-"):
        b.find("init-")
    with pytest.raises(Refused, match="is not in"):
        b.find("train-")


# --- S3 ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def amazon(monkeypatch):
    """An S3 server on this machine."""
    for package in ("s3fs", "moto.server", "flask"):
        pytest.importorskip(package, reason="pip install s3fs 'moto[server]'")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    conf = {"endpoint_url": f"http://{host}:{port}", "key": "a", "secret": "b"}
    monkeypatch.setitem(fsspec.config.conf, "s3", conf)
    fsspec.filesystem("s3").mkdir("bucket")
    yield
    server.stop()


@pytest.mark.filterwarnings("ignore")
def test_s3_itself(amazon, tmp_path):
    store = Store("s3://bucket/some/runs")
    store.begin()
    a, b = Remote(tmp_path / "a", store), Remote(tmp_path / "b", Store(store.url).joined())
    with pytest.raises(KeyboardInterrupt):
        a.once(node(), training(2))
    said = []
    step = b.once(node(), training(3, said))
    assert said == [(2, [1, 2])]
    assert a.there([NAME]) == {NAME}
    assert contents(a.once(node(), never)) == contents(step)
    assert json.loads(store.read(f"{NAME}/sealed.json"))["files"].keys() == contents(step).keys()
    with pytest.raises(Unreached, match="bucket does not exist"):
        Store("s3://elsewhere/runs").begin()

"""The page on loopback: up to date, read only, for this machine, and nothing of the disk but the steps."""

import http.client
import json
import os
import socket
import threading

import pytest

from prunery.report import Site, served
from prunery.report.serve import HOST, inside
from prunery.runs import Runs
from prunery.spec import Init, Model, Node, Refused


@pytest.fixture(scope="module")
def runs(tmp_path_factory, fake):
    fake.tree(root := tmp_path_factory.mktemp("served") / "runs")
    return root


@pytest.fixture(scope="module")
def port(runs):
    yield from serving(runs)


def serving(runs):
    with served(Site(runs)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def ask(port, path="/", method="GET", **headers):
    connection = http.client.HTTPConnection(HOST, port, timeout=20)
    connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read().decode()
    connection.close()
    return found


def state(port):
    return json.loads(ask(port, "/state.json")[2])


def test_listens_on_loopback_only(runs):
    with served(Site(runs)) as server:
        assert server.socket.getsockname()[0] == "127.0.0.1"


def test_the_page_is_the_report_and_may_ask_its_server(port, runs):
    status, headers, text = ask(port)
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert all(s.name in text for s in Runs(runs).steps())
    assert "connect-src 'self'" in text
    assert "state.json" in text


@pytest.mark.parametrize("path", ["/", "/state.json", "/nothing"])
def test_every_answer_carries_the_headers(port, path):
    headers = ask(port, path)[1]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "Python" not in headers["Server"]


def test_a_finished_step_changes_the_version_and_the_page(port, runs, fake):
    before = state(port)["version"]
    assert before in ask(port)[2]
    made = fake.make(Runs(runs), Node(Init(model=Model(name="new", input=(1, 8, 8), classes=10))), fake.numbers(0.1))
    assert state(port)["version"] != before
    assert made.name in ask(port)[2]


def test_what_is_the_same_is_not_sent_again(port):
    for path in ("/", "/state.json"):
        _, headers, _ = ask(port, path)
        status, _, text = ask(port, path, If_None_Match=headers["ETag"])
        assert (status, text) == (304, "")


def test_a_step_in_the_making_tells_how_far_it_is(port, runs):
    work = runs / ".work" / "train-0123456789ab"
    work.mkdir()
    (work / "metrics.jsonl").write_text('{"step": 1, "train_loss": 2}\n{"step": 2, "train_loss": 1.5, "x": "y"}\n{"ste')
    assert state(port)["working"] == [{"name": work.name, "row": {"step": 2, "train_loss": 1.5}}]
    (work / "metrics.jsonl").write_text('{"step": 3, "train_loss": NaN}\n')
    assert ask(port, "/state.json")[0] == 200


def test_head_tells_the_length_and_sends_nothing(port):
    length = len(ask(port)[2].encode())
    status, headers, text = ask(port, method="HEAD")
    assert (status, headers["Content-Length"], text) == (200, str(length), "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "WHATEVER"])
@pytest.mark.parametrize("path", ["/", "/state.json"])
def test_only_reading_is_answered(port, method, path):
    status, headers, _ = ask(port, path, method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1.evil.example:{port}",
        "",
        "[::1]:{port}",
    ],
)
def test_other_hosts_are_refused(port, host):
    for path in ("/", "/state.json"):
        status, _, text = ask(port, path, Host=host.format(port=port))
        assert status == 403
        assert "convnet" not in text


def test_no_host_and_two_hosts_are_refused(port):
    for hosts in ("", f"Host: 127.0.0.1:{port}\r\nHost: evil.example\r\n"):
        with socket.create_connection((HOST, port), timeout=20) as line:
            line.sendall(f"GET / HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n".encode())
            assert b" 403 " in line.recv(100)


def test_other_origins_are_refused(port):
    assert ask(port, "/state.json", Origin="http://evil.example")[0] == 403
    assert ask(port, "/state.json", Origin=f"http://localhost:{port}", Host=f"localhost:{port}")[0] == 200


@pytest.mark.parametrize("path", [
    "/../secret", "/..%2f..%2fsecret", "/%2e%2e/secret", "//etc/passwd", "/state.json/../../secret", "/env.json",
    "/\\..\\secret", "/%00",
])  # fmt: skip
def test_no_path_leads_to_a_file(port, runs, path):
    (runs.parent / "secret").write_text("secret words")
    status, _, text = ask(port, path)
    assert status == 404
    assert "secret words" not in text


def test_links_out_of_the_folder_are_not_followed(tmp_path, fake):
    outside = fake.tree(tmp_path / "outside", name="outsider")
    fake.tree(tmp_path / "runs")
    os.symlink(outside[-1].folder, tmp_path / "runs" / outside[-1].name)
    os.symlink(outside[1].folder, tmp_path / "runs" / outside[1].name)
    assert not inside(tmp_path / "runs" / outside[-1].name, tmp_path / "runs")
    for port in serving(tmp_path / "runs"):
        assert "outsider" not in ask(port)[2]


def test_a_linked_file_inside_a_step_and_a_linked_ancestor_are_left_out(tmp_path, fake):
    outside, ours = fake.tree(tmp_path / "outside", name="outsider"), fake.tree(tmp_path / "runs")
    result = ours[-1].folder / "result.json"
    result.unlink()
    os.symlink(outside[-1].folder / "result.json", result)
    root = ours[0].folder
    for path in root.iterdir():
        path.unlink()
    root.rmdir()
    os.symlink(outside[0].folder, root)
    for port in serving(tmp_path / "runs"):
        text = ask(port)[2]
        assert f'"name":"{ours[-1].name}"' not in text
        assert f'"missing":"{ours[0].name}"' in text
        assert f'"name":"{ours[0].name}"' not in text


def test_a_folder_without_steps_waits_and_a_broken_step_is_said(tmp_path, fake):
    (tmp_path / "runs").mkdir()
    for port in serving(tmp_path / "runs"):
        assert "No step is finished yet" in ask(port)[2]
        made = fake.tree(tmp_path / "runs")
        (made[1].folder / "result.json").write_text('{"density": "<b>"}')
        status, _, text = ask(port)
        assert status == 500
        assert "expected a number" in text
        assert "<b>" not in text
        (made[1].folder / "result.json").write_text("{}")
        assert ask(port)[0] == 200


def test_a_port_in_use_and_a_wrong_one_are_refused_in_a_line(port, runs):
    for wrong, words in ((port, "cannot be used"), (-1, "expected 0"), (70_000, "expected 0")):
        with pytest.raises(Refused, match=words) as refusal, served(Site(runs), wrong):
            pass
        assert "\n" not in str(refusal.value)


def test_a_client_that_says_nothing_holds_up_nobody(port):
    with socket.create_connection((HOST, port), timeout=20) as silent:
        silent.sendall(b"GET /")
        assert ask(port, "/state.json")[0] == 200

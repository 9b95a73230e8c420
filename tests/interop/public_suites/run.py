"""Test suites that client libraries bring along, run against a broker: those in the source
distributions of PyPI, in npm's packages and in Debian's.

  run.py FOLDER PORT SUITE...      (FOLDER: where suites are unpacked; SUITE: a name, or all)

One run at a time for a broker: the suites' queues have fixed names.

A suite must pass as many tests as stand in SUITES, and may fail only those that are named there
with the reason: some never pass there, some depend on the disk's speed. Prints one line a suite.
"""
import os
import re
import subprocess
import sys
import tarfile

FOLDER, PORT, NAMES = os.path.abspath(sys.argv[1]), sys.argv[2], sys.argv[3:]
PYTEST = ["pytest==8.3.4", "pytest-rerunfailures==15.0"]
GO = "/usr/share/gocode/src/github.com/rabbitmq/amqp091-go"


def quietly(*command, **how):
    done = subprocess.run(command, capture_output=True, text=True, **how)
    if done.returncode:
        sys.exit(f"{command}\n{done.stdout}{done.stderr}")
    return done.stdout


def sdist(name, version):
    """The unpacked source distribution, and a Python with the library and pytest."""
    home = f"{FOLDER}/{name}"
    python = f"{home}/venv/bin/python"
    if not os.path.exists(f"{home}/installed"):
        quietly(sys.executable, "-m", "venv", f"{home}/venv")
        pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
        quietly(*pip, "install", "setuptools", "wheel", f"{name}=={version}", *PYTEST)
        quietly(*pip, "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation",
                "-d", home, f"{name}=={version}")
        with tarfile.open(f"{home}/{name}-{version}.tar.gz") as archive:
            archive.extractall(home, filter="data")
        open(f"{home}/installed", "w").close()
    return f"{home}/{name}-{version}", python


def pytest(name, version, file, *options):
    tree, python = sdist(name, version)
    environment = {**os.environ, "RABBITMQ_HOST": "127.0.0.1", "RABBITMQ_5672_TCP": PORT}
    run = subprocess.run([python, "-m", "pytest", "-rA", "-p", "no:cacheprovider", file, *options],
                         cwd=tree, env=environment, capture_output=True, text=True)
    passed = re.findall(r"^PASSED (\S+)", run.stdout, re.M)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.M)
    return passed, failed, run.stdout + run.stderr


def py_amqp():
    # The cases of TLS need the suite's own certificates, and hosts of the internet.
    return pytest("amqp", "5.1.1", "t/integration/test_rmq.py", "-k", "not tls and not TLS and not ssl")


def kombu():
    return pytest("kombu", "5.4.2", "t/integration/test_py_amqp.py")


def amqplib():
    home = f"{FOLDER}/amqplib"
    if not os.path.exists(f"{home}/installed"):
        os.makedirs(home, exist_ok=True)
        quietly("npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", home,
                "amqplib@0.10.4", "mocha@10.8.2")
        quietly("npm", "pack", "--silent", "--pack-destination", home, "amqplib@0.10.4")
        with tarfile.open(f"{home}/amqplib-0.10.4.tgz") as archive:
            archive.extractall(home, filter="data")
        open(f"{home}/installed", "w").close()
    environment = {**os.environ, "URL": f"amqp://127.0.0.1:{PORT}", "NODE_PATH": f"{home}/node_modules"}
    files = ["test/channel_api.js", "test/callback_api.js", "test/connect.js"]
    run = subprocess.run([f"{home}/node_modules/.bin/mocha", "--ui", "tdd", "--exit", "--reporter", "tap", *files],
                         cwd=f"{home}/package", env=environment, capture_output=True, text=True)
    passed = re.findall(r"^ok \d+ (.*)$", run.stdout, re.M)
    failed = re.findall(r"^not ok \d+ (.*)$", run.stdout, re.M)
    return passed, failed, run.stdout + run.stderr


def amqp091_go():
    path, home = f"{FOLDER}/go/src/github.com/rabbitmq", f"{FOLDER}/go"
    os.makedirs(path, exist_ok=True)
    subprocess.run(["cp", "-r", GO, path], check=True)
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": f"{home}:/usr/share/gocode",
                   "GOCACHE": f"{home}/cache", "AMQP_URL": f"amqp://guest:guest@127.0.0.1:{PORT}/"}
    tree = f"{path}/amqp091-go"
    quietly("go", "test", "-c", "-o", f"{home}/suite", "-tags", "integration", ".", cwd=tree, env=environment)
    run = subprocess.run([f"{home}/suite", "-test.v", "-test.timeout", "600s"],
                         cwd=tree, env=environment, capture_output=True, text=True)
    passed = re.findall(r"^--- PASS: (\S+)", run.stdout, re.M)
    failed = re.findall(r"^--- FAIL: (\S+)", run.stdout, re.M)
    return passed, failed, run.stdout + run.stderr


# name: how it is run, how many must pass, which may fail and why
SUITES = {
    "py-amqp": (py_amqp, 10, {}),
    "kombu": (kombu, 40, {}),
    "amqplib": (amqplib, 69, {
        "Connect API serverProperties": "connects to port 5672 whatever URL says",
        "Connect API using custom heartbeat option": "connects to port 5672 whatever URL says",
    }),
    "amqp091-go": (amqp091_go, 114, {
        "TestDeclareArgsRejectToDeadLetterQueue":
            "ten gets without a pause must find a dead letter, which is committed to disk first",
        "TestCorruptedMessageIssue7": "200 ms for each message, each of them committed to disk",
    }),
}


def main():
    wrong = []
    for name in SUITES if NAMES == ["all"] else NAMES:
        run, needed, excused = SUITES[name]
        passed, failed, output = run()
        surplus = set(failed) - set(excused)
        print(f"{name}: {len(passed)} passed, {len(failed)} failed")
        if len(passed) < needed or surplus:
            wrong.append(f"{name}: {len(passed)} of {needed} passed, failed {sorted(surplus)}\n{output[-20_000:]}")
    if wrong:
        sys.exit("\n".join(wrong))


main()

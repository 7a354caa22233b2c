#!/usr/bin/env python3
"""A plugin for Ferrocast: puts the node's whole set of prefixes to an HTTP endpoint.

    webhook.py --socket PATH --url URL [--generated DIR]

DIR holds announcer_pb2.py, made from the protocol's text by protoc (see README.md).
"""
import argparse
import copy
import hashlib
import ipaddress
import json
import os
import pathlib
import queue
import random
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent import futures

import grpc

SERVICE = "ferrocast.announcer.v1alpha1.Announcer"
REQUEST_TIME_MAX_S = 10  # an API that takes longer is asked again
RETRY_MIN_S, RETRY_MAX_S = 0.2, 30.0  # doubles between the two
TEXT_LEN_MAX = 1024  # octets of a reason
STATUS_GAP_S = 0.12  # at most ten statuses a second, with room
CALLS_MAX = 8  # threads: the call that is open, those that end, and the next
MESSAGE_LEN_MAX = 4 * 1024 * 1024  # octets


class Endpoint:
    """The HTTP endpoint. One thread makes it agree with the newest set, however often that takes."""

    def __init__(self, url, changed):
        self.url, self.changed, self.node = url, changed, ""
        self.wanted = None  # (version, {prefix: body}); None: nothing to say
        self.put, self.problem, self.etag = None, "", None
        self.lock = threading.Condition()
        threading.Thread(target=self.work, daemon=True).start()

    def want(self, version, announcements):
        with self.lock:
            self.wanted = (version, announcements)
            self.lock.notify_all()

    def wait_for(self, version, seconds):
        with self.lock:
            return self.lock.wait_for(lambda: self.put and self.put[0] == version, seconds)

    def work(self):
        failures = 0
        while True:
            with self.lock:
                self.lock.wait_for(lambda: self.wanted is not None and self.wanted != self.put)
                wanted = self.wanted
            # What the endpoint has already is not put again: only the version is new.
            problem = "" if self.put and self.put[1] == wanted[1] else self.try_to_put(wanted[1])
            with self.lock:
                self.problem = problem
                if not problem:
                    self.put = wanted
                self.lock.notify_all()
            self.changed()
            failures = failures + 1 if problem else 0
            if problem:
                delay = min(RETRY_MAX_S, RETRY_MIN_S * 2 ** min(failures - 1, 20)) * random.uniform(0.75, 1.0)
                with self.lock:  # a newer set does not wait
                    self.lock.wait_for(lambda: self.wanted != wanted, delay)

    def try_to_put(self, announcements):
        """Empty if it worked, else why not."""
        prefixes = [{"prefix": prefix, **announcements[prefix]} for prefix in sorted(announcements)]
        body = json.dumps({"node": self.node, "announcements": prefixes}, sort_keys=True).encode()
        request = urllib.request.Request(self.url, data=body, method="PUT")
        request.add_header("Content-Type", "application/json")
        # The same for each attempt, so that one whose answer was lost is not done twice.
        request.add_header("Idempotency-Key", hashlib.sha256((self.etag or "").encode() + body).hexdigest())
        if self.etag:
            request.add_header("If-Match", self.etag)
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_TIME_MAX_S) as answer:
                answer.read()
                self.etag = answer.headers.get("ETag")
                return ""
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 412:  # somebody else has changed it: ours is the truth for this node
                    self.etag = error.headers.get("ETag")
                return f"the endpoint answers {error.code} {error.reason}"
        except (OSError, ValueError) as error:
            return f"the endpoint cannot be reached: {error}"


class Update:
    """An update between its begin and its end."""

    def __init__(self, begin, current):
        self.begin, self.terms, self.error = begin, {}, None
        self.set = dict(current) if begin.HasField("base") else {}

    def add(self, pb, chunk):
        for terms in chunk.terms:
            self.terms[terms.id] = [read_terms(one) for one in terms.terms]
        for announcement in chunk.announcements:
            try:
                ipaddress.ip_network(announcement.prefix)
            except ValueError as error:
                self.error = (announcement.prefix[:64], str(error))
                continue
            state = pb.State.Name(announcement.state).removeprefix("STATE_").lower()
            self.set[announcement.prefix] = {"state": state, "terms": self.terms.get(announcement.terms, [])}
        for withdrawal in chunk.withdrawals:
            self.set.pop(withdrawal.prefix, None)


def read_terms(terms):
    try:
        parameters = json.loads(terms.parameters_json or "{}")
    except ValueError:
        parameters = None
    return {"advertisement": terms.advertisement, "parameters": parameters}


class Plugin:
    """What outlives a call: the set accepted last, and the endpoint."""

    def __init__(self, pb, name, url):
        self.pb, self.name = pb, name
        self.lock = threading.RLock()
        self.accepted, self.set = None, {}
        self.call, self.orphan = None, None
        self.endpoint = Endpoint(url, self.report)

    def sync(self, messages, context):
        outbox, self_call = queue.Queue(maxsize=64), object()
        with self.lock:
            if self.call:
                self.call[1].put(None)  # its host is dead
            self.call = (self_call, outbox)
            self.stop_orphan_timer()
        hold = [300]
        reader = threading.Thread(target=self.read, args=(messages, outbox, hold), daemon=True)
        reader.start()
        context.add_callback(lambda: self.lost(self_call, hold[0]))
        last_status, pending, greeted = 0.0, False, False
        while context.is_active():
            try:
                wait = max(0.0, last_status + STATUS_GAP_S - time.monotonic()) if pending and greeted else None
                answer = outbox.get(timeout=wait) if wait != 0.0 else None
            except queue.Empty:
                answer = None
            if answer == "status":
                pending = True
            elif answer is not None:
                greeted = True  # the hello is the first: a status waits for it
                yield answer
                if answer.HasField("goodbye"):
                    return
            elif not pending or wait is None:
                return
            if pending and greeted and time.monotonic() >= last_status + STATUS_GAP_S:
                last_status, pending = time.monotonic(), False
                yield self.status()

    def read(self, messages, outbox, hold):
        update = None
        try:
            for message in messages:
                kind = message.WhichOneof("message")
                if kind == "hello":
                    hold[0], self.endpoint.node = message.hello.orphan_hold_s, message.hello.node_name
                    outbox.put(self.hello(message.hello))
                elif kind == "begin":
                    update = Update(message.begin, self.set)
                elif kind == "chunk" and update:
                    update.add(self.pb, message.chunk)
                elif kind == "end" and update:
                    outbox.put(self.end(update, message.end))
                    outbox.put("status")
                    update = None
                elif kind == "shutdown":
                    self.shut_down(message.shutdown)
                    outbox.put(self.pb.PluginMessage(goodbye=self.pb.Goodbye()))
        except grpc.RpcError:
            pass  # the host is gone; `lost` sees to it
        except Exception as error:  # a crash of this thread must end the call, not hang it
            print(f"webhook: {error!r}", file=sys.stderr)
        outbox.put(None)

    def hello(self, host):
        fits = host.protocol_min <= 1 <= host.protocol_max
        capabilities = self.pb.Capabilities(ipv4=True, ipv6=True, aggregation=True, drain=True)
        hello = self.pb.PluginHello(protocol=int(fits), protocol_min=1, protocol_max=1, name=self.name, plugin_version="1",
                                    capabilities=capabilities, orphan_hold_s=host.orphan_hold_s)
        with self.lock:
            if self.accepted:
                hello.accepted.CopyFrom(self.accepted)
        return self.pb.PluginMessage(hello=hello)

    def end(self, update, end):
        pb, version = self.pb, update.begin.version
        with self.lock:
            if update.error:
                prefix, reason = update.error
                return pb.PluginMessage(rejected=pb.Rejected(version=version, prefix=prefix, reason=reason[:256]))
            if update.begin.HasField("base") and update.begin.base != self.accepted:
                return pb.PluginMessage(need_snapshot=pb.NeedSnapshot(version=version, reason="another base"))
            if end.announcements != len(update.set):
                return pb.PluginMessage(need_snapshot=pb.NeedSnapshot(version=version, reason="another count"))
            seen = dict(update.set)
            if update.begin.provisional:  # not complete: what is there stays
                seen = {**self.visible(self.endpoint.wanted), **seen}
            self.accepted, self.set = copy.copy(version), update.set
            self.want(seen)
        return pb.PluginMessage(accepted=pb.Accepted(version=version))

    @staticmethod
    def visible(wanted):
        return wanted[1] if wanted else {}

    def want(self, announcements):
        visible = {prefix: a for prefix, a in announcements.items() if a["state"] != "withdrawn"}
        self.endpoint.want((self.accepted.epoch, self.accepted.generation) if self.accepted else None, visible)

    def status(self):
        pb, put = self.pb, self.endpoint.put
        target = pb.TargetStatus(name="network", up=not self.endpoint.problem)
        target.reason = self.endpoint.problem.encode()[:TEXT_LEN_MAX].decode(errors="ignore")
        if put and put[0]:
            target.reached.epoch, target.reached.generation = put[0]
            target.announced = len(put[1])
        return pb.PluginMessage(status=pb.Status(targets=[target]))

    def report(self):
        with self.lock:
            call = self.call
        if call:
            try:
                call[1].put_nowait("status")
            except queue.Full:
                pass  # one is on its way already, and says the newest

    def withdraw(self):
        with self.lock:
            self.accepted, self.set = None, {}
            self.want({})

    def shut_down(self, shutdown):
        if shutdown.how == self.pb.Shutdown.HOW_WITHDRAW:
            self.withdraw()
            self.endpoint.wait_for(None, shutdown.deadline_ms / 1000 * 0.9)

    def lost(self, call, hold):
        with self.lock:
            if self.call and self.call[0] is call:
                self.call[1].put(None)
                self.call = None
                self.stop_orphan_timer()
                self.orphan = threading.Timer(hold, self.withdraw)
                self.orphan.daemon = True
                self.orphan.start()

    def stop_orphan_timer(self):
        if self.orphan:
            self.orphan.cancel()
            self.orphan = None


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--socket", required=True, type=pathlib.Path)
    arguments.add_argument("--url", required=True)
    arguments.add_argument("--generated", default=pathlib.Path(__file__).parent, help="where announcer_pb2.py is")
    args = arguments.parse_args()
    sys.path.insert(0, str(args.generated))
    import announcer_pb2 as pb

    options = [("grpc.max_receive_message_length", MESSAGE_LEN_MAX)]
    server = grpc.server(futures.ThreadPoolExecutor(CALLS_MAX), options=options)
    plugin = Plugin(pb, args.socket.stem, args.url)
    sync = grpc.stream_stream_rpc_method_handler(
        plugin.sync, pb.HostMessage.FromString, pb.PluginMessage.SerializeToString
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Sync": sync})])
    args.socket.unlink(missing_ok=True)
    os.umask(0o177)  # only who owns it, and root, may dial
    server.add_insecure_port(f"unix:{args.socket}")
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: server.stop(0))
    server.wait_for_termination()


if __name__ == "__main__":
    main()

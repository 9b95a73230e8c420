"""Every error a RabbitMQ 3.10.8 was provoked to, as a table: what is asked, and the code, text,
scope, class and method id of the answer. Argument: the AMQP port of a node.

`texts` are whole, as clients match on them; the names of queues and exchanges stand in braces.
"""
import sys

import pika
import pika.channel
import pika.connection
import pika.exceptions
from pika import spec
from raw_frames import (
    RAW_CASES, handshakes, numbers_of_channels, run_raw, silence, small_frames)

PORT = int(sys.argv[1])
NO_QUEUE = "NOT_FOUND - no queue 'probe.none' in vhost '/'"
NO_EXCHANGE = "NOT_FOUND - no exchange 'probe.none' in vhost '/'"
DEFAULT = "ACCESS_REFUSED - operation not permitted on the default exchange"
LOCKED = ("RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{}' in vhost '/'. It "
          "could be originally declared on another connection or the exclusive property value does "
          "not match that of the original declaration.")
REFUSED_LOGIN = ("ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. "
                 "For details see the broker logfile.")

closed = []  # the close methods of the broker, with their class and method ids


def note_closes():
    for owner, name in ((pika.channel.Channel, "_on_close_from_broker"),
                        (pika.connection.Connection, "_on_connection_close_from_broker")):
        original = getattr(owner, name)

        def noted(self, frame, original=original):
            closed.append(frame.method)
            return original(self, frame)
        setattr(owner, name, noted)


def connect(user="guest", password="guest", vhost="/"):
    return pika.BlockingConnection(pika.ConnectionParameters(
        "127.0.0.1", PORT, vhost, pika.PlainCredentials(user, password)))


def queue(arguments=None, name="probe.q", **flags):
    return lambda ch: ch.queue_declare(name, arguments=arguments, **flags)


def exchange(kind="direct", name="probe.x", **flags):
    return lambda ch: ch.exchange_declare(name, kind, **flags)


def publish(exchange_name="", key="probe.q", **properties):
    return lambda ch: ch.basic_publish(exchange_name, key, b"x", pika.BasicProperties(**properties))


def consume(queue_name="probe.q", tag=None, **flags):
    return lambda ch: ch.basic_consume(queue_name, lambda *_: None, consumer_tag=tag, **flags)


def impl(method, *replies):
    """A method that pika's blocking layer would not send, or checks itself."""
    return lambda ch: ch._impl._rpc(method, None, list(replies)) if replies else \
        ch._impl._send_method(method)


def own(name, *arguments, **flags):
    """A call of the channel."""
    return lambda ch: getattr(ch, name)(*arguments, **flags)


def other_connection_owns(ch):
    elsewhere = connect()
    OPEN.append(elsewhere)
    elsewhere.channel().queue_declare("probe.q2", exclusive=True)


def get_and_ack(ch):
    publish()(ch)
    ch.basic_ack(ch.basic_get("probe.q")[0].delivery_tag)


def settled(ch):
    """What the broker says to methods without an answer comes before the answer to the next."""
    ch.connection.channel().close()


OPEN = []  # connections to close after the case
OK = None
DECLARE_Q, DECLARE_X = (50, 10), (40, 10)
BIND_Q, CONSUME, PUBLISH = (50, 20), (60, 20), (60, 40)


def arg(name, why):
    return f"PRECONDITION_FAILED - invalid arg '{name}' for queue 'probe.q' in vhost '/': {why}"


def differs(kind, name, what, now, before):
    return (f"PRECONDITION_FAILED - inequivalent arg '{what}' for {kind} '{name}' in vhost '/': "
            f"received '{now}' but current is '{before}'")


def added(what, value):
    return (f"PRECONDITION_FAILED - inequivalent arg '{what}' for queue 'probe.q' in vhost '/': "
            f"received the value '{value}' of type 'signedint' but current is none")


def left_out(what, value):
    return (f"PRECONDITION_FAILED - inequivalent arg '{what}' for queue 'probe.q' in vhost '/': "
            f"received none but current is the value '{value}' of type 'signedint'")


TEN_YEARS_MS = 10 * 365 * 24 * 3_600_000
BIND_ARGS = {"x-match": "some"}
TAG_99 = "PRECONDITION_FAILED - unknown delivery tag 99"

# name, what is done before, what is asked, code, text, class and method id
CHANNEL_CASES = [
    ("queue_passive_missing", [], queue(name="probe.none", passive=True), 404, NO_QUEUE, DECLARE_Q),
    ("exchange_passive_missing", [], exchange(name="probe.none", passive=True), 404, NO_EXCHANGE, DECLARE_X),
    ("queue_delete_missing", [], own("queue_delete", "probe.none"), OK, None, None),
    ("exchange_delete_missing", [], own("exchange_delete", "probe.none"), OK, None, None),
    ("queue_purge_missing", [], own("queue_purge", "probe.none"), 404, NO_QUEUE, (50, 30)),
    ("consume_missing", [], consume("probe.none"), 404, NO_QUEUE, CONSUME),
    ("get_missing", [], own("basic_get", "probe.none"), 404, NO_QUEUE, (60, 70)),
    ("publish_missing_exchange", [], publish("probe.none"), 404, NO_EXCHANGE, PUBLISH),
    ("bind_missing_exchange", [queue()], own("queue_bind", "probe.q", "probe.none", "k"), 404, NO_EXCHANGE, BIND_Q),
    ("bind_missing_queue", [], own("queue_bind", "probe.none", "amq.direct", "k"), 404, NO_QUEUE, BIND_Q),
    ("unbind_missing_exchange", [queue()], own("queue_unbind", "probe.q", "probe.none", "k"), OK, None, None),
    ("unbind_missing_queue", [], own("queue_unbind", "probe.none", "amq.direct", "k"), OK, None, None),
    ("unbind_missing_binding", [queue()], own("queue_unbind", "probe.q", "amq.direct", "k"), OK, None, None),
    ("exchange_bind_missing_source", [], own("exchange_bind", "amq.direct", "probe.none"), 404, NO_EXCHANGE, (40, 30)),
    ("exchange_bind_missing_destination", [], own("exchange_bind", "probe.none", "amq.direct"), 404, NO_EXCHANGE, (40, 30)),
    ("exchange_bind_default", [], own("exchange_bind", "", "amq.direct"), 403, DEFAULT, (40, 30)),
    ("default_exchange_declare", [], exchange(name=""), 403, DEFAULT, DECLARE_X),
    ("default_exchange_passive", [], exchange(name="", passive=True), 403, DEFAULT, DECLARE_X),
    ("default_exchange_delete", [], own("exchange_delete", ""), 403, DEFAULT, (40, 20)),
    ("default_exchange_bind", [queue()], own("queue_bind", "probe.q", "", "k"), 403, DEFAULT, BIND_Q),
    ("default_exchange_unbind", [queue()], own("queue_unbind", "probe.q", "", "k"), 403, DEFAULT, (50, 50)),
    ("amq_exchange_declare_new", [], exchange(name="amq.probe"), 403, "ACCESS_REFUSED - exchange name 'amq.probe' contains reserved prefix 'amq.*'", DECLARE_X),
    ("amq_exchange_redeclare_same", [], exchange(name="amq.direct", durable=True), OK, None, None),
    ("amq_exchange_redeclare_other", [], exchange(name="amq.direct"), 406, differs("exchange", "amq.direct", "durable", "false", "true"), DECLARE_X),
    ("amq_exchange_delete", [], own("exchange_delete", "amq.direct"), 403, "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed", (40, 20)),
    ("amq_queue_declare_new", [], queue(name="amq.probe"), 403, "ACCESS_REFUSED - queue name 'amq.probe' contains reserved prefix 'amq.*'", DECLARE_Q),
    ("exchange_unknown_type", [], exchange("no-such-type"), 503, "COMMAND_INVALID - unknown exchange type 'no-such-type'", DECLARE_X),
    ("exchange_type_differs", [exchange()], exchange("fanout"), 406, differs("exchange", "probe.x", "type", "fanout", "direct"), DECLARE_X),
    ("exchange_durable_differs", [exchange()], exchange(durable=True), 406, differs("exchange", "probe.x", "durable", "true", "false"), DECLARE_X),
    ("exchange_auto_delete_differs", [exchange()], exchange(auto_delete=True), 406, differs("exchange", "probe.x", "auto_delete", "true", "false"), DECLARE_X),
    ("exchange_internal_differs", [exchange()], exchange(internal=True), 406, differs("exchange", "probe.x", "internal", "true", "false"), DECLARE_X),
    ("exchange_ae_differs", [exchange(arguments={"alternate-exchange": "a"})], exchange(arguments={"alternate-exchange": "b"}), 406, differs("exchange", "probe.x", "alternate-exchange", "b", "a"), DECLARE_X),
    ("exchange_ae_wrong_type", [], exchange(arguments={"alternate-exchange": 5}), 406, "PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange 'probe.x' in vhost '/'", DECLARE_X),
    ("exchange_delete_if_unused_in_use", [exchange(), queue(), own("queue_bind", "probe.q", "probe.x", "k")], own("exchange_delete", "probe.x", if_unused=True), 406, "PRECONDITION_FAILED - exchange 'probe.x' in vhost '/' in use", (40, 20)),
    ("publish_internal_exchange", [exchange(internal=True)], publish("probe.x"), 403, "ACCESS_REFUSED - cannot publish to internal exchange 'probe.x' in vhost '/'", PUBLISH),
    ("queue_durable_differs", [queue()], queue(durable=True), 406, differs("queue", "probe.q", "durable", "true", "false"), DECLARE_Q),
    ("queue_auto_delete_differs", [queue()], queue(auto_delete=True), 406, differs("queue", "probe.q", "auto_delete", "true", "false"), DECLARE_Q),
    ("queue_exclusive_differs", [queue()], queue(exclusive=True), 405, LOCKED.format("probe.q"), DECLARE_Q),
    ("queue_unknown_argument_differs", [queue({"x-whatever": 1})], queue({"x-whatever": 2}), OK, None, None),
    ("queue_exclusive_other_connection", [other_connection_owns], queue(name="probe.q2", exclusive=True), 405, LOCKED.format("probe.q2"), DECLARE_Q),
    ("queue_exclusive_other_passive", [other_connection_owns], queue(name="probe.q2", passive=True), 405, LOCKED.format("probe.q2"), DECLARE_Q),
    ("queue_exclusive_other_consume", [other_connection_owns], consume("probe.q2"), 405, LOCKED.format("probe.q2"), CONSUME),
    ("queue_exclusive_other_get", [other_connection_owns], own("basic_get", "probe.q2"), 405, LOCKED.format("probe.q2"), (60, 70)),
    ("queue_exclusive_other_delete", [other_connection_owns], own("queue_delete", "probe.q2"), 405, LOCKED.format("probe.q2"), (50, 40)),
    ("queue_empty_name_without_declare", [], own("queue_bind", "", "amq.direct", "k"), 404, "NOT_FOUND - no previously declared queue", BIND_Q),
    ("ttl_negative", [], queue({"x-message-ttl": -1}), 406, arg("x-message-ttl", "{value_negative,-1}"), DECLARE_Q),
    ("ttl_string", [], queue({"x-message-ttl": "a"}), 406, arg("x-message-ttl", '"expected integer, got longstr"'), DECLARE_Q),
    ("ttl_differs", [queue({"x-message-ttl": 10})], queue({"x-message-ttl": 20}), 406, differs("queue", "probe.q", "x-message-ttl", 20, 10), DECLARE_Q),
    ("ttl_added", [queue()], queue({"x-message-ttl": 20}), 406, added("x-message-ttl", "20"), DECLARE_Q),
    ("ttl_left_out", [queue({"x-message-ttl": 10})], queue(), 406, left_out("x-message-ttl", "10"), DECLARE_Q),
    ("ttl_ten_years", [], queue({"x-message-ttl": TEN_YEARS_MS, "x-expires": TEN_YEARS_MS}), OK, None, None),
    ("ttl_above_ten_years", [], queue({"x-message-ttl": TEN_YEARS_MS + 1}), 406, arg("x-message-ttl", "{value_too_large,315360000001}"), DECLARE_Q),
    ("ttl_too_big", [], queue({"x-message-ttl": 1 << 40}), 406, arg("x-message-ttl", "{value_too_large,1099511627776}"), DECLARE_Q),
    ("expires_zero", [], queue({"x-expires": 0}), 406, arg("x-expires", "{value_zero,0}"), DECLARE_Q),
    ("expires_string", [], queue({"x-expires": "a"}), 406, arg("x-expires", '"expected integer, got longstr"'), DECLARE_Q),
    ("max_length_negative", [], queue({"x-max-length": -1}), 406, arg("x-max-length", "{value_negative,-1}"), DECLARE_Q),
    ("max_length_string", [], queue({"x-max-length": "a"}), 406, arg("x-max-length", '"expected integer, got longstr"'), DECLARE_Q),
    ("max_length_bytes_negative", [], queue({"x-max-length-bytes": -1}), 406, arg("x-max-length-bytes", "{value_negative,-1}"), DECLARE_Q),
    ("overflow_unknown", [], queue({"x-overflow": "no-such"}), 406, arg("x-overflow", "invalid_overflow"), DECLARE_Q),
    ("dlx_not_string", [], queue({"x-dead-letter-exchange": 5}), 406, "PRECONDITION_FAILED - invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'probe.q' in vhost '/'", DECLARE_Q),
    ("dlrk_without_dlx", [], queue({"x-dead-letter-routing-key": "k"}), 406, arg("x-dead-letter-routing-key", "routing_key_but_no_dlx_defined"), DECLARE_Q),
    ("dlx_differs", [queue({"x-dead-letter-exchange": "a"})], queue({"x-dead-letter-exchange": "b"}), 406, differs("queue", "probe.q", "x-dead-letter-exchange", "b", "a"), DECLARE_Q),
    ("max_priority_negative", [], queue({"x-max-priority": -1}), 406, arg("x-max-priority", "{value_negative,-1}"), DECLARE_Q),
    ("max_priority_256", [], queue({"x-max-priority": 256}), 406, arg("x-max-priority", "{max_value_exceeded,256}"), DECLARE_Q),
    ("queue_type_classic_named_later", [queue()], queue({"x-queue-type": "classic"}), OK, None, None),
    ("queue_type_classic_left_out", [queue({"x-queue-type": "classic"})], queue(), OK, None, None),
    ("queue_type_quorum_named_later", [queue(durable=True)], queue({"x-queue-type": "quorum"}, durable=True), 406, "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'probe.q' in vhost '/': received the value 'quorum' of type 'longstr' but current is none", DECLARE_Q),
    ("queue_type_unknown", [], queue({"x-queue-type": "no-such"}), 406, arg("x-queue-type", "\"unsupported queue type 'no-such'\""), DECLARE_Q),
    ("quorum_not_durable", [], queue({"x-queue-type": "quorum"}), 406, "PRECONDITION_FAILED - invalid property 'non-durable' for queue 'probe.q' in vhost '/'", DECLARE_Q),
    ("queue_mode_unknown", [], queue({"x-queue-mode": "no-such"}), 406, arg("x-queue-mode", "\"unsupported queue mode 'no-such'\""), DECLARE_Q),
    ("single_active_consumer_not_bool", [], queue({"x-single-active-consumer": "yes"}), 406, arg("x-single-active-consumer", "{unacceptable_type,longstr}"), DECLARE_Q),
    ("delete_if_empty_not_empty", [queue(), publish()], own("queue_delete", "probe.q", if_empty=True), 406, "PRECONDITION_FAILED - queue 'probe.q' in vhost '/' not empty", (50, 40)),
    ("delete_if_unused_in_use", [queue(), consume()], own("queue_delete", "probe.q", if_unused=True), 406, "PRECONDITION_FAILED - queue 'probe.q' in vhost '/' in use", (50, 40)),
    ("consume_exclusive_twice", [queue(), consume(exclusive=True)], consume(), 403, "ACCESS_REFUSED - queue 'probe.q' in vhost '/' in exclusive use", CONSUME),
    ("consumer_tag_twice", [queue(), consume(tag="t")], impl(spec.Basic.Consume(queue="probe.q", consumer_tag="t"), spec.Basic.ConsumeOk), 530, "NOT_ALLOWED - attempt to reuse consumer tag 't'", CONSUME),
    ("consumer_priority_not_integer", [queue()], consume(arguments={"x-priority": "a"}), 406, arg("x-priority", '"expected integer, got longstr"'), CONSUME),
    ("ack_unknown_tag", [], own("basic_ack", 99), 406, TAG_99, (60, 80)),
    ("nack_unknown_tag", [], own("basic_nack", 99), 406, TAG_99, (60, 120)),
    ("reject_unknown_tag", [], own("basic_reject", 99), 406, TAG_99, (60, 90)),
    ("ack_zero_not_multiple", [], own("basic_ack", 0), 406, "PRECONDITION_FAILED - unknown delivery tag 0", (60, 80)),
    ("ack_zero_multiple_none_outstanding", [], own("basic_ack", 0, multiple=True), OK, None, None),
    ("ack_twice", [queue(), get_and_ack], own("basic_ack", 1), 406, "PRECONDITION_FAILED - unknown delivery tag 1", (60, 80)),
    ("qos_prefetch_size", [], own("basic_qos", prefetch_size=10), 540, "NOT_IMPLEMENTED - prefetch_size!=0 (10)", (60, 10)),
    ("recover_no_requeue", [], own("basic_recover", requeue=False), 540, "NOT_IMPLEMENTED - requeue=false", (60, 110)),
    ("flow_off", [], own("flow", False), 540, "NOT_IMPLEMENTED - active=false", (20, 20)),
    ("flow_on", [], own("flow", True), OK, None, None),
    ("tx_commit_without_select", [], own("tx_commit"), 406, "PRECONDITION_FAILED - channel is not transactional", (90, 20)),
    ("tx_rollback_without_select", [], own("tx_rollback"), 406, "PRECONDITION_FAILED - channel is not transactional", (90, 30)),
    ("confirm_after_tx", [own("tx_select")], own("confirm_delivery"), 406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode", (85, 10)),
    ("tx_after_confirm", [own("confirm_delivery")], own("tx_select"), 406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode", (90, 10)),
    ("publish_wrong_user_id", [queue()], publish(user_id="somebody"), 406, "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was 'guest'", PUBLISH),
    ("publish_expiration_not_number", [queue()], publish(expiration="abc"), 406, "PRECONDITION_FAILED - invalid expiration 'abc': no_integer", PUBLISH),
    ("publish_expiration_negative", [queue()], publish(expiration="-1"), 406, "PRECONDITION_FAILED - invalid expiration '-1': {value_negative,-1}", PUBLISH),
    ("publish_expiration_above_ten_years", [queue()], publish(expiration=str(TEN_YEARS_MS + 1)), 406, "PRECONDITION_FAILED - invalid expiration '315360000001': {value_too_large,315360000001}", PUBLISH),
    ("publish_expiration_ten_years", [queue()], publish(expiration=str(TEN_YEARS_MS)), OK, None, None),
    ("publish_cc_not_list", [queue()], publish(headers={"CC": 5}), 406, 'PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,"CC",signedint}', PUBLISH),
    ("headers_x_match_number", [queue()], own("queue_bind", "probe.q", "amq.headers", arguments={"x-match": 1}), 406, "PRECONDITION_FAILED - Invalid x-match field type signedint (value 1); expected longstr", BIND_Q),
    ("headers_x_match_unknown", [queue()], own("queue_bind", "probe.q", "amq.headers", arguments=BIND_ARGS), 406, "PRECONDITION_FAILED - Invalid x-match field value <<\"some\">>; expected all, any, all-with-x, or any-with-x", BIND_Q),
    ("direct_reply_to_manual_ack", [], consume("amq.rabbitmq.reply-to"), 406, "PRECONDITION_FAILED - reply consumer cannot acknowledge", CONSUME),
    ("direct_reply_to_twice", [consume("amq.rabbitmq.reply-to", auto_ack=True)], consume("amq.rabbitmq.reply-to", auto_ack=True), 406, "PRECONDITION_FAILED - reply consumer already set", CONSUME),
    ("direct_reply_to_publish_without_consumer", [queue()], publish(reply_to="amq.rabbitmq.reply-to"), 406, "PRECONDITION_FAILED - fast reply consumer does not exist", PUBLISH),
    ("publish_immediate", [queue()], impl(spec.Basic.Publish(exchange="", routing_key="probe.q", immediate=True)), 540, "NOT_IMPLEMENTED - immediate=true", PUBLISH),
]

LOGIN_CASES = [
    ("wrong_password", {"password": "wrong"}, 403, REFUSED_LOGIN),
    ("unknown_user", {"user": "nobody"}, 403, REFUSED_LOGIN),
    ("missing_vhost", {"vhost": "no-such-vhost"}, 530, "NOT_ALLOWED - vhost no-such-vhost not found"),
]


def clean():
    while OPEN:
        OPEN.pop().close()
    connection = connect()
    channel = connection.channel()
    channel.queue_delete("probe.q")
    channel.exchange_delete("probe.x")
    connection.close()


def provoke(before, ask):
    """The close that the broker answers with: code, text, ids, whether of the connection."""
    connection = connect()
    channel = connection.channel()
    for step in before:
        step(channel)
    closed.clear()
    try:
        ask(channel)
        settled(channel)
    except (pika.exceptions.ChannelClosed, pika.exceptions.ConnectionClosed,
            pika.exceptions.ChannelWrongStateError):
        pass
    close = closed[0] if closed else None
    if connection.is_open:
        connection.close()
    clean()
    if close is None:
        return None
    return (close.reply_code, close.reply_text, (close.class_id, close.method_id),
            isinstance(close, spec.Connection.Close))


def expected(code, text, ids):
    # A reply text is a short string: 255 bytes.
    return None if code is OK else (code, text[:255], ids, code >= 500)


def login(how):
    closed.clear()
    try:
        connect(**how).close()
        return None
    except pika.exceptions.AMQPConnectionError:
        return (closed[0].reply_code, closed[0].reply_text) if closed else "no close"


def reply_to_across_connections():
    """The answering side may ask for the token's queue, and only for one that is alive."""
    asking, answering = connect(), connect()
    requester, server = asking.channel(), answering.channel()
    server.queue_declare("probe.q")
    replies = []
    requester.basic_consume("amq.rabbitmq.reply-to", lambda *got: replies.append(got[3]), auto_ack=True)
    publish(reply_to="amq.rabbitmq.reply-to")(requester)
    asking.process_data_events(0)
    requester.queue_declare("probe.q", passive=True)
    token = server.basic_get("probe.q", auto_ack=True)[1].reply_to
    assert server.queue_declare(token, passive=True).method.queue == token
    server.basic_publish("", token, b"answer")
    while not replies:
        asking.process_data_events(1)
    assert replies == [b"answer"], replies
    asking.close()
    for gone in (token, token + "forged"):
        try:
            answering.channel().queue_declare(gone, passive=True)
            raise SystemExit(f"{gone} was found")
        except pika.exceptions.ChannelClosedByBroker as refused:
            assert refused.reply_code == 404, refused
    answering.close()
    clean()


def main():
    note_closes()
    clean()
    wrong = []
    for name, before, ask, code, text, ids in CHANNEL_CASES:
        got, wanted = provoke(before, ask), expected(code, text, ids)
        if got != wanted:
            wrong.append(f"{name}:\n  wanted {wanted}\n  got    {got}")
    for name, how, code, text in LOGIN_CASES:
        got = login(how)
        if got != (code, text):
            wrong.append(f"{name}: wanted {(code, text)} got {got}")
    for case in RAW_CASES:
        wrong.extend(run_raw(PORT, case))
    for part in (handshakes, silence, small_frames, numbers_of_channels):
        wrong.extend(part(PORT))
    reply_to_across_connections()
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(CHANNEL_CASES) + len(LOGIN_CASES) + len(RAW_CASES)} errors as RabbitMQ's")


main()

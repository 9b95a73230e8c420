//! From the frames of a `basic.publish` to a request.

use crate::{
    channel::{Content, Mode},
    codec::{ContentHeader, PublishMethod, cannot_decode},
    connection::{Connection, Identity},
    fault::{Fault, MethodId, ReplyCode},
};
use bytes::{Bytes, BytesMut};
use understudy_model::{
    Malformed, Outbox, PropertiesView, Publish, Request, TIME_TO_LIVE_MS_MAX, check_table_depth,
};

/// Pieces of a body below this length are gathered: each of its own would cost more to keep
/// than it holds, and keep a whole read buffer alive.
const GATHER_BYTES: usize = 1024;

/// A publish whose body is on its way.
pub(crate) struct Assembly {
    publish: Publish,
    body_left: u64,
    gathered: BytesMut,
}

impl Assembly {
    pub(crate) fn received_bytes(&self) -> u64 {
        (self.publish.body.len() + self.gathered.len()) as u64
    }

    fn push(&mut self, piece: Bytes) {
        let length = piece.len() as u64;
        let is_rest = length == self.body_left;
        self.body_left -= length.min(self.body_left);
        if is_rest && self.gathered.is_empty() {
            self.publish.body.push(piece);
            return;
        }
        if piece.len() < GATHER_BYTES {
            self.gathered.extend_from_slice(&piece);
        } else {
            self.publish.body.push(self.gathered.split().freeze());
            self.publish.body.push(piece);
        }
        if is_rest {
            self.publish.body.push(self.gathered.split().freeze());
        }
    }
}

impl Connection {
    pub(crate) fn on_publish(&mut self, number: u16, payload: &Bytes) -> Result<(), Fault> {
        let method = PublishMethod::decode(payload)?;
        if method.immediate {
            return Err(Fault::new(ReplyCode::NOT_IMPLEMENTED, "immediate=true"));
        }
        self.channel(number)?.content = Content::Header(method);
        Ok(())
    }

    pub(crate) fn on_content_header(
        &mut self,
        number: u16,
        payload: Bytes,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let channel = self.channel(number)?;
        let method = match std::mem::replace(&mut channel.content, Content::None) {
            Content::Header(method) => method,
            Content::Body(_) => return Err(unexpected_header()),
            Content::None => return Err(expected_method()),
        };
        self.start_body(number, method, payload, out).map_err(|fault| fault.at(MethodId::PUBLISH))
    }

    fn start_body(
        &mut self,
        number: u16,
        method: PublishMethod,
        payload: Bytes,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let Some(header) = ContentHeader::decode(payload.clone()) else {
            return Err(cannot_decode(&payload));
        };
        if header.class != MethodId::PUBLISH.class {
            let text = format!(
                "expected content header for class 60, got one for class {} instead",
                header.class
            );
            return Err(Fault::new(ReplyCode::UNEXPECTED_FRAME, text));
        }
        let limit = self.options.message_bytes_max;
        if header.body_bytes > limit {
            return Err(Fault::precondition(format!(
                "message size {} is larger than configured max size {limit}",
                header.body_bytes
            )));
        }
        let properties = check_properties(&header.properties, &self.identity)?;
        let properties = self.address_replies(number, header.properties.clone(), &properties)?;
        let publish = Publish {
            exchange: method.exchange,
            routing_key: method.routing_key,
            properties,
            channel: number,
            mandatory: method.mandatory,
            ..Publish::default()
        };
        if header.body_bytes == 0 {
            return self.submit(number, publish, out);
        }
        self.channel(number)?.content = Content::Body(Assembly {
            publish,
            body_left: header.body_bytes,
            gathered: BytesMut::new(),
        });
        Ok(())
    }

    pub(crate) fn on_content_body(
        &mut self,
        number: u16,
        payload: Bytes,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let bytes = payload.len() as u64;
        let channel = self.channel(number)?;
        let assembly = match &mut channel.content {
            Content::Body(assembly) => assembly,
            Content::Header(_) => return Err(unexpected_body()),
            Content::None => return Err(expected_method()),
        };
        if bytes > assembly.body_left {
            let text = "content body is longer than its header announced";
            return Err(Fault::new(ReplyCode::FRAME_ERROR, text).at(MethodId::PUBLISH));
        }
        assembly.push(payload);
        if assembly.body_left > 0 {
            return self.hold_bytes(bytes).map_err(|fault| fault.at(MethodId::PUBLISH));
        }
        match std::mem::replace(&mut channel.content, Content::None) {
            Content::Body(Assembly { publish, .. }) => {
                self.release_bytes(publish.body.len() as u64 - bytes);
                self.submit(number, publish, out).map_err(|fault| fault.at(MethodId::PUBLISH))
            }
            _ => Ok(()),
        }
    }

    fn submit(&mut self, number: u16, mut publish: Publish, out: &mut Outbox) -> Result<(), Fault> {
        let channel = self.channel(number)?;
        channel.has_published = true;
        match &mut channel.mode {
            Mode::Plain => {}
            Mode::Confirm(confirms) => {
                confirms.published += 1;
                publish.confirm = Some(confirms.published);
            }
            Mode::Transaction(buffered) => {
                let bytes = buffered.publish(publish);
                return self.hold_bytes(bytes);
            }
        }
        out.requests.push(Request::Publish(publish));
        Ok(())
    }
}

fn check_properties<'a>(raw: &'a [u8], identity: &Identity) -> Result<PropertiesView<'a>, Fault> {
    let malformed =
        |malformed: Malformed| Fault::new(ReplyCode::SYNTAX_ERROR, malformed.to_string());
    let properties = PropertiesView::decode(raw).map_err(malformed)?;
    if let Some(headers) = properties.headers {
        check_table_depth(headers).map_err(malformed)?;
    }
    if let Some(user) = properties.user_id
        && user != identity.user.as_bytes()
        && !identity.impersonator
    {
        return Err(Fault::precondition(format!(
            "user_id property set to '{}' but authenticated user was '{}'",
            String::from_utf8_lossy(user),
            identity.user
        )));
    }
    if let Some(expiration) = properties.expiration {
        check_expiration(expiration)?;
    }
    Ok(properties)
}

/// A decimal number of milliseconds, else RabbitMQ's words.
fn check_expiration(expiration: &[u8]) -> Result<(), Fault> {
    let digits_at = usize::from(matches!(expiration.first(), Some(b'-' | b'+')));
    let is_digit = |octet: &&u8| octet.is_ascii_digit();
    let number_end = digits_at + expiration[digits_at..].iter().take_while(is_digit).count();
    let shown = String::from_utf8_lossy(expiration);
    let (number, leftover) = expiration.split_at(number_end);
    let reason = if number_end == digits_at {
        "no_integer".to_owned()
    } else if !leftover.is_empty() {
        format!("{{leftover_string,\"{}\"}}", String::from_utf8_lossy(leftover))
    } else {
        // The longest short string holds more digits than any integer; those are too large.
        let number = String::from_utf8_lossy(number);
        match number.parse::<i128>() {
            Ok(value) if value < 0 => format!("{{value_negative,{value}}}"),
            Ok(value) if value <= i128::from(TIME_TO_LIVE_MS_MAX) => return Ok(()),
            Err(_) if number.starts_with('-') => format!("{{value_negative,{number}}}"),
            _ => format!("{{value_too_large,{number}}}"),
        }
    };
    Err(Fault::precondition(format!("invalid expiration '{shown}': {reason}")))
}

fn expected_method() -> Fault {
    let text = "expected method frame, got non method frame instead";
    Fault::new(ReplyCode::UNEXPECTED_FRAME, text)
}

fn unexpected_header() -> Fault {
    let text = "expected content body, got non content body frame instead";
    Fault::new(ReplyCode::UNEXPECTED_FRAME, text).at(MethodId::PUBLISH)
}

fn unexpected_body() -> Fault {
    let text = "expected content header for class 60, got non content header frame instead";
    Fault::new(ReplyCode::UNEXPECTED_FRAME, text).at(MethodId::PUBLISH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(expiration: &str) -> String {
        let text = check_expiration(expiration.as_bytes()).unwrap_err().reply_text();
        text.split_once(": ").unwrap().1.to_owned()
    }

    #[test]
    fn an_expiration_is_a_decimal_number_of_milliseconds() {
        assert_eq!(check_expiration(b"0"), Ok(()));
        assert_eq!(check_expiration(b"315360000000"), Ok(()));
        assert_eq!(reason("abc"), "no_integer");
        assert_eq!(reason(""), "no_integer");
        assert_eq!(reason("-1"), "{value_negative,-1}");
        assert_eq!(reason("10ms"), "{leftover_string,\"ms\"}");
        assert_eq!(reason("315360000001"), "{value_too_large,315360000001}");
        assert!(reason(&"9".repeat(60)).starts_with("{value_too_large,999"));
    }

    #[test]
    fn small_pieces_of_a_body_are_gathered_and_large_ones_shared() {
        let mut assembly = Assembly {
            publish: Publish::default(),
            body_left: 3 + 2000 + 2 + 2000,
            gathered: BytesMut::new(),
        };
        let large = Bytes::from(vec![7; 2000]);
        for piece in [&b"a"[..], b"bc", &large, b"d", b"e", &large] {
            let shared =
                if piece.len() == 2000 { large.clone() } else { Bytes::from(piece.to_vec()) };
            assembly.push(shared);
        }
        assert_eq!(assembly.body_left, 0);
        let lengths: Vec<_> = assembly.publish.body.pieces().map(Bytes::len).collect();
        assert_eq!(lengths, [3, 2000, 2, 2000]);
        assert_eq!(assembly.publish.body.pieces().nth(1).unwrap().as_ptr(), large.as_ptr());
    }
}

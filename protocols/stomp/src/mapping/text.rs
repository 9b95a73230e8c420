//! AMQP field values as header text.

use bytes::{BufMut, BytesMut};
use std::fmt::Write;
use understudy_model::Value;

/// Numbers and strings as they are; tables and arrays like JSON. Recursion is bounded: the table
/// was decoded, so it is at most `TABLE_DEPTH_MAX` deep.
pub(crate) fn put_value(value: &Value, out: &mut BytesMut) {
    match value {
        Value::String(bytes) | Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => out.put_slice(text.as_bytes()),
            Err(_) => out.put_slice(String::from_utf8_lossy(bytes).as_bytes()),
        },
        Value::Void => {}
        other => put_nested(other, out),
    }
}

fn put_nested(value: &Value, out: &mut BytesMut) {
    match value {
        Value::Bool(v) => put(out, v),
        Value::I8(v) => put(out, v),
        Value::U8(v) => put(out, v),
        Value::I16(v) => put(out, v),
        Value::U16(v) => put(out, v),
        Value::I32(v) => put(out, v),
        Value::U32(v) => put(out, v),
        Value::I64(v) => put(out, v),
        Value::F32(v) => put(out, v),
        Value::F64(v) => put(out, v),
        Value::Timestamp(v) => put(out, v),
        Value::Decimal { scale, value } => put_decimal(*scale, *value, out),
        Value::Void => out.put_slice(b"null"),
        Value::String(bytes) | Value::Bytes(bytes) => {
            // Rust's debug form escapes what JSON would.
            put(out, format_args!("{:?}", String::from_utf8_lossy(bytes)));
        }
        Value::Array(values) => {
            out.put_u8(b'[');
            for (index, value) in values.iter().enumerate() {
                out.put_slice(if index > 0 { b"," } else { b"" });
                put_nested(value, out);
            }
            out.put_u8(b']');
        }
        Value::Table(table) => {
            out.put_u8(b'{');
            for (index, (name, value)) in table.0.iter().enumerate() {
                out.put_slice(if index > 0 { b"," } else { b"" });
                put(out, format_args!("{:?}:", &**name));
                put_nested(value, out);
            }
            out.put_u8(b'}');
        }
    }
}

fn put(out: &mut BytesMut, value: impl std::fmt::Display) {
    // Writing to a buffer cannot fail.
    let _ = write!(out, "{value}");
}

fn put_decimal(scale: u8, value: u32, out: &mut BytesMut) {
    let digits = format!("{value:0>width$}", width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    put(out, whole);
    if scale > 0 {
        put(out, format_args!(".{fraction}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use understudy_model::Table;

    #[test]
    fn values_of_any_type_are_readable() {
        let mut table = Table::default();
        table.push("a", Value::I32(1));
        table.push("b", Value::Array(vec![Value::text("x\"y"), Value::Void, Value::Bool(true)]));
        for (value, wanted) in [
            (Value::text("plain"), "plain"),
            (Value::String(Bytes::from_static(b"\xff")), "\u{fffd}"),
            (Value::I64(-5), "-5"),
            (Value::U8(200), "200"),
            (Value::Bool(false), "false"),
            (Value::F64(0.5), "0.5"),
            (Value::Decimal { scale: 2, value: 314 }, "3.14"),
            (Value::Decimal { scale: 3, value: 5 }, "0.005"),
            (Value::Decimal { scale: 0, value: 5 }, "5"),
            (Value::Timestamp(7), "7"),
            (Value::Void, ""),
            (Value::Table(table), r#"{"a":1,"b":["x\"y",null,true]}"#),
        ] {
            let mut out = BytesMut::new();
            put_value(&value, &mut out);
            assert_eq!(std::str::from_utf8(&out).unwrap(), wanted);
        }
    }
}

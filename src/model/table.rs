//! AMQP field tables (specification section 4.2.5.5, with RabbitMQ's type letters), the form in
//! which arguments and message headers are kept by every frontend and the log.

use crate::{Malformed, Text};
use bytes::{BufMut, Bytes, BytesMut};

/// Tables and arrays may be nested this deep; deeper ones are refused before anything recurses.
pub const TABLE_DEPTH_MAX: usize = 32;

/// A field value with RabbitMQ's type letter.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    I8(i8),
    U8(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    F32(f32),
    F64(f64),
    Decimal {
        scale: u8,
        value: u32,
    },
    /// `S`: any bytes, usually UTF-8.
    String(Bytes),
    Array(Vec<Self>),
    /// Seconds since 1970.
    Timestamp(u64),
    Table(Table),
    Void,
    /// `x`
    Bytes(Bytes),
}

impl Value {
    pub fn text(text: &str) -> Self {
        Self::String(Bytes::copy_from_slice(text.as_bytes()))
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Any integer type, widened.
    pub fn as_i64(&self) -> Option<i64> {
        Some(match *self {
            Self::I8(v) => v.into(),
            Self::U8(v) => v.into(),
            Self::I16(v) => v.into(),
            Self::U16(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::U32(v) => v.into(),
            Self::I64(v) => v,
            _ => return None,
        })
    }

    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }
}

/// Erlang's names of the field types, as they stand in RabbitMQ's texts.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "bool",
        Value::I8(_) => "byte",
        Value::U8(_) => "unsignedbyte",
        Value::I16(_) => "short",
        Value::U16(_) => "unsignedshort",
        Value::I32(_) => "signedint",
        Value::U32(_) => "unsignedint",
        Value::I64(_) => "long",
        Value::F32(_) => "float",
        Value::F64(_) => "double",
        Value::Decimal { .. } => "decimal",
        Value::String(_) => "longstr",
        Value::Array(_) => "array",
        Value::Timestamp(_) => "timestamp",
        Value::Table(_) => "table",
        Value::Void => "void",
        Value::Bytes(_) => "binary",
    }
}

/// Fields in the order of the wire; repeated names are kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table(pub Vec<(Text, Value)>);

impl Table {
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    pub fn push(&mut self, name: &str, value: Value) {
        self.0.push((Text::from(name), value));
    }

    /// Decodes the inside of a table: what follows its 32-bit length.
    pub fn decode(inside: &[u8]) -> Result<Self, Malformed> {
        check_table_depth(inside)?;
        decode_table(inside)
    }

    /// Appends the inside of the table, without its 32-bit length.
    pub fn encode(&self, out: &mut BytesMut) {
        for (name, value) in &self.0 {
            let name = name.as_bytes();
            let name = &name[..name.len().min(255)];
            out.put_u8(name.len() as u8);
            out.put_slice(name);
            encode_value(value, out);
        }
    }

    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(&mut out);
        out.freeze()
    }
}

/// Walks the inside of a table without building anything and without recursion, and refuses
/// nesting beyond [`TABLE_DEPTH_MAX`] or lengths that do not fit. To be called before any
/// recursive parser sees bytes of a client.
pub fn check_table_depth(inside: &[u8]) -> Result<(), Malformed> {
    const TOO_DEEP: Malformed = Malformed("field table: nested too deeply");
    // Each open container: where it ends, counted from the back, and whether it has names.
    let mut open = [(0, true); TABLE_DEPTH_MAX];
    let mut depth = 1;
    let mut rest = inside;
    while depth > 0 {
        let (end, named) = open[depth - 1];
        if rest.len() == end {
            depth -= 1;
            continue;
        }
        if named {
            take_short(&mut rest)?;
        }
        let kind = take(&mut rest, 1)?[0];
        if kind == b'F' || kind == b'A' {
            let length = take_length(&mut rest)?;
            let inner_end = rest.len().checked_sub(length).ok_or(LENGTH)?;
            *open.get_mut(depth).ok_or(TOO_DEEP)? = (inner_end, kind == b'F');
            depth += 1;
        } else {
            skip_scalar(kind, &mut rest)?;
        }
        if rest.len() < open[depth - 1].0 {
            return Err(LENGTH);
        }
    }
    Ok(())
}

const LENGTH: Malformed = Malformed("field table: length");

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Malformed> {
    if len > rest.len() {
        return Err(LENGTH);
    }
    let (taken, tail) = rest.split_at(len);
    *rest = tail;
    Ok(taken)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    take(rest, N)?.try_into().map_err(|_| LENGTH)
}

fn take_length(rest: &mut &[u8]) -> Result<usize, Malformed> {
    Ok(u32::from_be_bytes(take_array(rest)?) as usize)
}

fn take_short<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = take(rest, 1)?[0] as usize;
    take(rest, length)
}

fn skip_scalar(kind: u8, rest: &mut &[u8]) -> Result<(), Malformed> {
    let length = match kind {
        b'V' => 0,
        b't' | b'b' | b'B' => 1,
        b's' | b'u' | b'U' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'l' | b'L' | b'd' | b'T' => 8,
        b'S' | b'x' => take_length(rest)?,
        _ => return Err(Malformed("field table: unknown type")),
    };
    take(rest, length).map(|_| ())
}

/// Recursion is bounded: callers have run [`check_table_depth`].
fn decode_table(inside: &[u8]) -> Result<Table, Malformed> {
    let mut rest = inside;
    let mut table = Table::default();
    while !rest.is_empty() {
        let name = std::str::from_utf8(take_short(&mut rest)?);
        let name = name.map_err(|_| Malformed("field table: name"))?;
        table.0.push((Text::from(name), decode_value(&mut rest)?));
    }
    Ok(table)
}

fn decode_value(rest: &mut &[u8]) -> Result<Value, Malformed> {
    Ok(match take(rest, 1)?[0] {
        b't' => Value::Bool(take(rest, 1)?[0] != 0),
        b'b' => Value::I8(i8::from_be_bytes(take_array(rest)?)),
        b'B' => Value::U8(u8::from_be_bytes(take_array(rest)?)),
        b's' | b'U' => Value::I16(i16::from_be_bytes(take_array(rest)?)),
        b'u' => Value::U16(u16::from_be_bytes(take_array(rest)?)),
        b'I' => Value::I32(i32::from_be_bytes(take_array(rest)?)),
        b'i' => Value::U32(u32::from_be_bytes(take_array(rest)?)),
        b'l' | b'L' => Value::I64(i64::from_be_bytes(take_array(rest)?)),
        b'f' => Value::F32(f32::from_be_bytes(take_array(rest)?)),
        b'd' => Value::F64(f64::from_be_bytes(take_array(rest)?)),
        b'D' => Value::Decimal {
            scale: take(rest, 1)?[0],
            value: u32::from_be_bytes(take_array(rest)?),
        },
        b'T' => Value::Timestamp(u64::from_be_bytes(take_array(rest)?)),
        b'V' => Value::Void,
        b'S' => Value::String(take_long(rest)?),
        b'x' => Value::Bytes(take_long(rest)?),
        b'F' => {
            let length = take_length(rest)?;
            Value::Table(decode_table(take(rest, length)?)?)
        }
        b'A' => {
            let length = take_length(rest)?;
            let mut inside = take(rest, length)?;
            let mut values = Vec::new();
            while !inside.is_empty() {
                values.push(decode_value(&mut inside)?);
            }
            Value::Array(values)
        }
        _ => return Err(Malformed("field table: unknown type")),
    })
}

/// A field's value where it lies in an encoded table: scalars are read, texts are borrowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FieldView<'a> {
    Bool(bool),
    Integer(i64),
    Float(f64),
    /// Seconds since 1970.
    Timestamp(u64),
    /// `S`
    Text(&'a [u8]),
    /// Nothing, bytes, a table or an array.
    Other,
}

/// Names and values of an encoded table one by one; builds nothing. Ends before what is malformed.
pub fn fields(inside: &[u8]) -> impl Iterator<Item = (&[u8], FieldView<'_>)> {
    let mut rest = inside;
    std::iter::from_fn(move || {
        let name = take_short(&mut rest).ok()?;
        Some((name, field_view(&mut rest).ok()?))
    })
}

fn field_view<'a>(rest: &mut &'a [u8]) -> Result<FieldView<'a>, Malformed> {
    let kind = *rest.first().ok_or(LENGTH)?;
    Ok(match kind {
        b'S' | b'x' | b'F' | b'A' => {
            take(rest, 1)?;
            let length = take_length(rest)?;
            let bytes = take(rest, length)?;
            if kind == b'S' { FieldView::Text(bytes) } else { FieldView::Other }
        }
        // Nothing else holds what would have to be copied.
        _ => match decode_value(rest)? {
            Value::Bool(value) => FieldView::Bool(value),
            Value::F32(value) => FieldView::Float(value.into()),
            Value::F64(value) => FieldView::Float(value),
            Value::Decimal { scale, value } => {
                FieldView::Float(f64::from(value) / 10f64.powi(scale.into()))
            }
            Value::Timestamp(value) => FieldView::Timestamp(value),
            value => value.as_i64().map_or(FieldView::Other, FieldView::Integer),
        },
    })
}

fn take_long(rest: &mut &[u8]) -> Result<Bytes, Malformed> {
    let length = take_length(rest)?;
    take(rest, length).map(Bytes::copy_from_slice)
}

fn encode_value(value: &Value, out: &mut BytesMut) {
    match value {
        Value::Bool(v) => put(out, b't', &[u8::from(*v)]),
        Value::I8(v) => put(out, b'b', &v.to_be_bytes()),
        Value::U8(v) => put(out, b'B', &v.to_be_bytes()),
        Value::I16(v) => put(out, b's', &v.to_be_bytes()),
        Value::U16(v) => put(out, b'u', &v.to_be_bytes()),
        Value::I32(v) => put(out, b'I', &v.to_be_bytes()),
        Value::U32(v) => put(out, b'i', &v.to_be_bytes()),
        Value::I64(v) => put(out, b'l', &v.to_be_bytes()),
        Value::F32(v) => put(out, b'f', &v.to_be_bytes()),
        Value::F64(v) => put(out, b'd', &v.to_be_bytes()),
        Value::Decimal { scale, value } => {
            put(out, b'D', &[*scale]);
            out.put_u32(*value);
        }
        Value::Timestamp(v) => put(out, b'T', &v.to_be_bytes()),
        Value::Void => out.put_u8(b'V'),
        Value::String(v) => put_long(out, b'S', v),
        Value::Bytes(v) => put_long(out, b'x', v),
        Value::Table(table) => put_nested(out, b'F', |out| table.encode(out)),
        Value::Array(values) => put_nested(out, b'A', |out| {
            for value in values {
                encode_value(value, out);
            }
        }),
    }
}

fn put(out: &mut BytesMut, kind: u8, bytes: &[u8]) {
    out.put_u8(kind);
    out.put_slice(bytes);
}

fn put_long(out: &mut BytesMut, kind: u8, bytes: &[u8]) {
    out.put_u8(kind);
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

fn put_nested(out: &mut BytesMut, kind: u8, inside: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    let at = out.len();
    out.put_u32(0);
    inside(out);
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> Vec<u8> {
        let mut inside = Vec::new();
        for _ in 0..levels {
            let mut outer = vec![1, b'k', b'F'];
            outer.extend((inside.len() as u32).to_be_bytes());
            outer.extend(&inside);
            inside = outer;
        }
        inside
    }

    #[test]
    fn all_types_round_trip() {
        let mut inner = Table::default();
        inner.push("in", Value::Void);
        let mut table = Table::default();
        for (index, value) in [
            Value::Bool(true),
            Value::I8(-1),
            Value::U8(200),
            Value::I16(-2),
            Value::U16(60_000),
            Value::I32(-3),
            Value::U32(4_000_000_000),
            Value::I64(-4),
            Value::F32(0.5),
            Value::F64(0.25),
            Value::Decimal { scale: 2, value: 314 },
            Value::text("text"),
            Value::Array(vec![Value::I32(1), Value::text("two"), Value::Array(vec![])]),
            Value::Timestamp(1_700_000_000),
            Value::Table(inner),
            Value::Void,
            Value::Bytes(Bytes::from_static(b"\0\xff")),
        ]
        .into_iter()
        .enumerate()
        {
            table.push(&format!("k{index}"), value);
        }
        assert_eq!(Table::decode(&table.to_bytes()), Ok(table));
    }

    #[test]
    fn nesting_is_refused_without_recursion() {
        assert!(check_table_depth(&nested(TABLE_DEPTH_MAX - 1)).is_ok());
        assert!(check_table_depth(&nested(TABLE_DEPTH_MAX)).is_err());
        assert!(check_table_depth(&nested(3_000)).is_err());
    }

    #[test]
    fn lengths_that_overlap_their_container_are_refused() {
        // A table of 4 bytes announced inside, but its string reaches beyond it.
        let bytes = [1, b'k', b'F', 0, 0, 0, 4, 1, b'a', b'S', 0, 0, 0, 0, 0];
        assert!(check_table_depth(&bytes).is_err());
        assert!(Table::decode(&[3, b'a']).is_err());
        assert!(Table::decode(&[1, b'a', b'?']).is_err());
    }
}

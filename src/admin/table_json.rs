//! AMQP field tables as JSON objects and back, as RabbitMQ's HTTP API shows them.

use bytes::Bytes;
use serde_json::{Map, Number, Value as Json};
use understudy_model::{TABLE_DEPTH_MAX, Table, Text, Value};

pub(super) fn to_json(table: &Bytes) -> Json {
    table_json(&Table::decode(table).unwrap_or_default())
}

fn table_json(table: &Table) -> Json {
    Json::Object(table.0.iter().map(|(name, v)| (name.to_string(), value_json(v))).collect())
}

fn value_json(value: &Value) -> Json {
    if let Some(number) = value.as_i64() {
        return number.into();
    }
    match value {
        Value::Bool(flag) => (*flag).into(),
        Value::String(bytes) => String::from_utf8_lossy(bytes).into(),
        Value::Array(values) => values.iter().map(value_json).collect(),
        Value::Table(table) => table_json(table),
        Value::F32(number) => Number::from_f64(f64::from(*number)).map_or(Json::Null, Json::Number),
        Value::F64(number) => Number::from_f64(*number).map_or(Json::Null, Json::Number),
        Value::Timestamp(seconds) => (*seconds).into(),
        _ => Json::Null,
    }
}

/// # Errors
/// What of it no table can hold.
pub(super) fn from_json(json: &Map<String, Json>) -> Result<Bytes, String> {
    Ok(json_table(json, 0)?.to_bytes())
}

fn json_table(json: &Map<String, Json>, depth: usize) -> Result<Table, String> {
    if depth > TABLE_DEPTH_MAX {
        return Err(format!("nested deeper than {TABLE_DEPTH_MAX}"));
    }
    let mut table = Table::default();
    for (name, value) in json {
        if name.len() > 255 {
            return Err("a name longer than 255 bytes".into());
        }
        table.0.push((Text::from(name.as_str()), json_value(value, depth)?));
    }
    Ok(table)
}

fn json_value(json: &Json, depth: usize) -> Result<Value, String> {
    Ok(match json {
        Json::Null => Value::Void,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::I64(number),
            None => Value::F64(number.as_f64().ok_or("a number out of range")?),
        },
        Json::String(text) => Value::text(text),
        Json::Array(values) if depth < TABLE_DEPTH_MAX => {
            let values = values.iter().map(|value| json_value(value, depth + 1));
            Value::Array(values.collect::<Result<_, _>>()?)
        }
        Json::Array(_) => return Err(format!("nested deeper than {TABLE_DEPTH_MAX}")),
        Json::Object(object) => Value::Table(json_table(object, depth + 1)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_comes_back_as_it_was() {
        let json = serde_json::json!({
            "x-max-length": 10, "flag": true, "text": "ü", "list": [1, {"deep": -1.5}], "none": null
        });
        let table = from_json(json.as_object().unwrap()).unwrap();
        assert_eq!(to_json(&table), json);
        let mut deep = serde_json::json!({});
        for _ in 0..=TABLE_DEPTH_MAX + 1 {
            deep = serde_json::json!({ "d": deep });
        }
        assert!(from_json(deep.as_object().unwrap()).is_err());
    }
}

//! Sender-selected distribution: the headers `CC` and `BCC` name further routing keys, and `BCC` is
//! not delivered (RabbitMQ's extension of that name).

use bytes::Bytes;
use understudy_model::{PropertiesView, Refusal, RefusalKind, Table, Text, Value, type_name};

pub(crate) const CC: &str = "CC";
pub(crate) const BCC: &str = "BCC";

#[derive(Debug, PartialEq)]
pub(crate) struct Selected {
    pub(crate) keys: Vec<Text>,
    /// The properties to store, if there was a `BCC`.
    pub(crate) without_bcc: Option<Bytes>,
}

/// Looks into the header table only if the bytes of such a header's name are somewhere in it.
///
/// # Errors
/// A header of that name that is not an array of texts.
pub(crate) fn further_keys(raw: &[u8]) -> Result<Option<Selected>, Refusal> {
    if !PropertiesView::has_headers(raw) || !raw.windows(2).any(|pair| pair == b"CC") {
        return Ok(None);
    }
    let Ok(view) = PropertiesView::decode(raw) else { return Ok(None) };
    let headers = view.headers.and_then(|inside| Table::decode(inside).ok()).unwrap_or_default();
    if headers.get(CC).is_none() && headers.get(BCC).is_none() {
        return Ok(None);
    }
    let mut keys = Vec::new();
    for name in [CC, BCC] {
        if let Some(value) = headers.get(name) {
            keys.extend(texts(name, value)?);
        }
    }
    let without_bcc = headers.get(BCC).is_some().then(|| {
        let mut headers = headers;
        headers.0.retain(|(name, _)| name != BCC);
        view.with_headers(&headers)
    });
    Ok(Some(Selected { keys, without_bcc }))
}

fn texts(name: &str, value: &Value) -> Result<Vec<Text>, Refusal> {
    let refuse = |value: &Value| {
        let kind = type_name(value);
        let text = format!("invalid message: {{unacceptable_type_in_header,\"{name}\",{kind}}}");
        Refusal::new(RefusalKind::PreconditionFailed, text)
    };
    let Value::Array(values) = value else { return Err(refuse(value)) };
    values.iter().map(|value| value.as_str().map(Text::from).ok_or_else(|| refuse(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_model::Properties;

    fn raw(headers: &[(&str, Value)]) -> Bytes {
        let mut table = Table::default();
        headers.iter().for_each(|(name, value)| table.push(name, value.clone()));
        Properties { headers: Some(table), priority: Some(3), ..Properties::default() }.to_bytes()
    }

    fn keys(texts: &[&str]) -> Value {
        Value::Array(texts.iter().map(|text| Value::text(text)).collect())
    }

    #[test]
    fn both_name_keys_and_one_is_taken_out() {
        let found = further_keys(&raw(&[("CC", keys(&["a", "b"])), ("BCC", keys(&["c"]))]));
        let found = found.unwrap().unwrap();
        assert_eq!(found.keys, ["a", "b", "c"]);
        assert_eq!(found.without_bcc.unwrap(), raw(&[("CC", keys(&["a", "b"]))]));
        let found = further_keys(&raw(&[("CC", keys(&[]))])).unwrap().unwrap();
        assert_eq!(found, Selected { keys: vec![], without_bcc: None });
    }

    #[test]
    fn others_are_left_alone_and_wrong_ones_refused() {
        assert_eq!(further_keys(&raw(&[("ACC", keys(&["a"]))])), Ok(None));
        assert_eq!(further_keys(&Properties::default().to_bytes()), Ok(None));
        let refused = further_keys(&raw(&[("CC", Value::I32(1))])).unwrap_err();
        let text = "invalid message: {unacceptable_type_in_header,\"CC\",signedint}";
        assert_eq!(refused.text, text);
    }
}

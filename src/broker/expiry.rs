//! When messages expire: the `expiration` property and a queue's time to live.

use understudy_model::{PropertiesView, Refusal, RefusalKind, TIME_TO_LIVE_MS_MAX};

/// # Errors
/// An `expiration` that is not a whole number of milliseconds from 0 on; texts as RabbitMQ's.
pub(crate) fn check(raw: &[u8]) -> Result<(), Refusal> {
    if !PropertiesView::has_expiration(raw) {
        return Ok(());
    }
    let Some(given) = PropertiesView::decode(raw).ok().and_then(|view| view.expiration) else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(given);
    let reason = match text.parse::<i128>() {
        Ok(number) if number < 0 => format!("{{value_negative,{number}}}"),
        Ok(number) if number > i128::from(TIME_TO_LIVE_MS_MAX) => {
            format!("{{value_too_large,{number}}}")
        }
        Ok(_) => return Ok(()),
        Err(_) => "no_integer".into(),
    };
    let text = format!("invalid expiration '{text}': {reason}");
    Err(Refusal::new(RefusalKind::PreconditionFailed, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_model::{Properties, Text};

    #[test]
    fn expirations_are_checked() {
        for (given, reason) in [
            ("0", None),
            ("315360000000", None),
            ("abc", Some("no_integer")),
            ("", Some("no_integer")),
            ("-1", Some("{value_negative,-1}")),
            ("315360000001", Some("{value_too_large,315360000001}")),
        ] {
            let expiration = Some(Text::from(given));
            let raw = Properties { expiration, ..Properties::default() }.to_bytes();
            let refused = check(&raw).err().map(|refusal| refusal.text.to_string());
            let expected = reason.map(|reason| format!("invalid expiration '{given}': {reason}"));
            assert_eq!(refused, expected);
        }
        assert_eq!(check(&Properties::default().to_bytes()), Ok(()));
    }
}

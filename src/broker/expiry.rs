//! When messages expire: the `expiration` property and a queue's time to live.

use understudy_model::{PropertiesView, Refusal, RefusalKind};

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
        Ok(number) if number > MILLISECONDS_MAX => format!("{{value_too_big,{number}}}"),
        Ok(_) => return Ok(()),
        Err(_) => "no_integer".into(),
    };
    let text = format!("invalid expiration '{text}': {reason}");
    Err(Refusal::new(RefusalKind::PreconditionFailed, text))
}

/// The most milliseconds that a time may have, as RabbitMQ has it.
const MILLISECONDS_MAX: i128 = 4_294_967_295;

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_model::{Properties, Text};

    #[test]
    fn expirations_are_checked() {
        for (given, reason) in [
            ("0", None),
            ("4294967295", None),
            ("abc", Some("no_integer")),
            ("", Some("no_integer")),
            ("-1", Some("{value_negative,-1}")),
            ("4294967296", Some("{value_too_big,4294967296}")),
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

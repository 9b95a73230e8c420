//! Exit codes: sysexits(3), as RabbitMQ's own tools use them.

use understudy_client::Error;

pub(crate) const EXIT_USAGE: u8 = 64;
pub(crate) const EXIT_DATA: u8 = 65;
pub(crate) const EXIT_NO_USER: u8 = 67;
pub(crate) const EXIT_UNAVAILABLE: u8 = 69;
pub(crate) const EXIT_SOFTWARE: u8 = 70;
pub(crate) const EXIT_TEMPORARY: u8 = 75;
pub(crate) const EXIT_NO_PERMISSION: u8 = 77;
pub(crate) const EXIT_CONFIG: u8 = 78;

/// Reply code of AMQP 0-9-1: a login, or what the user may not do.
const ACCESS_REFUSED: u16 = 403;

/// For a verb that talks to a broker with the native client.
pub(super) fn of_client(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Error>() {
        Some(Error::Address(_)) => EXIT_USAGE,
        Some(Error::Tls(_)) => EXIT_CONFIG,
        Some(Error::Refused { code: ACCESS_REFUSED, .. }) => EXIT_NO_PERMISSION,
        Some(
            Error::Refused { .. } | Error::Returned { .. } | Error::Nacked | Error::Invalid(_),
        ) => EXIT_DATA,
        Some(Error::Timeout) => EXIT_TEMPORARY,
        _ => EXIT_UNAVAILABLE,
    }
}

//! Escapes in headers: none in 1.0; `\n`, `\c` and `\\` in 1.1; also `\r` in 1.2.

use super::Version;
use bytes::{BufMut, BytesMut};
use memchr::memchr;
use std::borrow::Cow;

/// An escape that the version does not define: the frame is to be refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UndefinedEscape;

pub(crate) fn unescape(text: &str, version: Version) -> Result<Cow<'_, str>, UndefinedEscape> {
    if version == Version::V10 || memchr(b'\\', text.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(text));
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('c') => ':',
                Some('\\') => '\\',
                Some('r') if version == Version::V12 => '\r',
                _ => return Err(UndefinedEscape),
            },
            other => other,
        });
    }
    Ok(Cow::Owned(plain))
}

/// Appends `text` as a header's name or value. What a version cannot express (a line end or NUL,
/// which would end the header or the frame) becomes a space, so that no publisher can forge
/// headers of a MESSAGE.
pub(crate) fn escape(text: &[u8], version: Version, name: bool, out: &mut BytesMut) {
    let special = |&b: &u8| matches!(b, b'\n' | b'\r' | b':' | b'\\' | 0);
    let mut rest = text;
    while let Some(at) = rest.iter().position(special) {
        out.put_slice(&rest[..at]);
        let replacement: &[u8] = match (rest[at], version) {
            (0, _) | (b'\n' | b'\r', Version::V10) => b" ",
            (b':', Version::V10) if name => b"_",
            (b':', Version::V10) => b":",
            (b'\\', Version::V10) => b"\\",
            // 1.1 has no escape for it, and many readers take CRLF for a line end.
            (b'\r', Version::V11) => b" ",
            (b'\r', Version::V12) => b"\\r",
            (b'\n', _) => b"\\n",
            (b':', _) => b"\\c",
            _ => b"\\\\",
        };
        out.put_slice(replacement);
        rest = &rest[at + 1..];
    }
    out.put_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use Version::{V10, V11, V12};

    fn escaped(text: &str, version: Version, name: bool) -> String {
        let mut out = BytesMut::new();
        escape(text.as_bytes(), version, name, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn each_version_has_its_escapes() {
        assert_eq!(unescape(r"a\nb\cc\\d", V11).unwrap(), "a\nb:c\\d");
        assert_eq!(unescape(r"a\rb", V12).unwrap(), "a\rb");
        assert_eq!(unescape(r"a\rb", V11), Err(UndefinedEscape));
        assert_eq!(unescape(r"a\tb\", V10).unwrap(), r"a\tb\");
        for bad in [r"\t", r"x\", r"\N"] {
            assert_eq!(unescape(bad, V11), Err(UndefinedEscape));
            assert_eq!(unescape(bad, V12), Err(UndefinedEscape));
        }
    }

    #[test]
    fn what_is_escaped_is_read_back() {
        let text = "\u{a655} a:b\\c\nd\re";
        assert_eq!(unescape(&escaped(text, V12, true), V12).unwrap(), text);
        let text = "a:b\\c\nd";
        assert_eq!(unescape(&escaped(text, V11, true), V11).unwrap(), text);
    }

    #[test]
    fn nothing_escapes_from_its_header() {
        assert_eq!(escaped("a:\\b\nc\rd\0e", V10, false), "a:\\b c d e");
        assert_eq!(escaped("a:b", V10, true), "a_b");
        assert_eq!(escaped("a\rb\0", V11, false), "a b ");
        assert_eq!(escaped("\0", V12, false), " ");
    }
}

use super::*;
use understudy_model::{Properties, Table, Text, Value};

fn message() -> Properties {
    let mut headers = Table::default();
    for (name, value) in [
        ("color", Value::text("blue")),
        ("country", Value::text("UK")),
        ("weight", Value::I32(2_500)),
        ("ratio", Value::F64(0.5)),
        ("urgent", Value::Bool(true)),
        ("count", Value::text("10")),
        ("flag", Value::text("true")),
        ("quoted", Value::text("it's")),
        ("nothing", Value::Void),
        ("list", Value::Array(vec![])),
        ("x-y", Value::I8(3)),
        ("größe", Value::U8(7)),
        ("decimal", Value::Decimal { scale: 2, value: 314 }),
        ("_under$", Value::I64(1)),
    ] {
        headers.push(name, value);
    }
    Properties {
        headers: Some(headers),
        delivery_mode: Some(2),
        correlation_id: Some(Text::from("c-1")),
        message_id: Some(Text::from("m-1")),
        timestamp: Some(1_700_000_000),
        kind: Some(Text::from("car")),
        user_id: Some(Text::from("guest")),
        ..Properties::default()
    }
}

fn truth(selector: &str, properties: &Properties) -> Option<bool> {
    let raw = properties.to_bytes();
    let parsed = Selector::parse(selector).unwrap_or_else(|error| panic!("{selector}: {error}"));
    let truth = evaluate::truth(&parsed.condition, &Candidate::new(&raw), parsed.converts_strings);
    assert_eq!(parsed.selects(&Candidate::new(&raw)), truth == Some(true));
    truth
}

fn assert_all(wanted: Option<bool>, selectors: &[&str]) {
    for selector in selectors {
        assert_eq!(truth(selector, &message()), wanted, "{selector}");
    }
}

/// The examples of JMS 2.0 section 3.8.1 are among these.
#[test]
fn what_is_true() {
    assert_all(
        Some(true),
        &[
            "JMSType = 'car' AND color = 'blue' AND weight > 2499",
            "weight BETWEEN 2500 AND 2500",
            "weight NOT BETWEEN 1 AND 2",
            "country IN ('UK', 'US', 'France')",
            "country not in ('DE')",
            "color LIKE 'b%e' and color not like '_ed'",
            "quoted = 'it''s'",
            "missing IS NULL AND color IS NOT NULL AND nothing IS NULL AND list IS NULL",
            "urgent",
            "urgent = TRUE and not urgent <> true",
            "NOT (color = 'red' OR weight < 10)",
            "NOT color = 'red' AND urgent",
            "weight / 1000 = 2",
            "weight / 1000.0 = 2.5",
            "weight = 2.5E3 AND weight = 2500. AND weight = +2500 AND weight = 2500L",
            "ratio = .5 AND ratio = 5e-1 AND ratio = 0.5d AND ratio*2 = 1f",
            "-weight = -2500 AND - -weight = 2500 AND 2 + 3 * 4 - 1 = 13 AND (2 + 3) * 4 = 20",
            "8 / 4 / 2 = 1 AND 8 - 4 - 2 = 2",
            "weight = 0x9c4 AND weight = 04704",
            "JMSDeliveryMode = 'PERSISTENT' AND JMSPriority = 4 AND JMSTimestamp = 1700000000",
            "JMSMessageID = 'm-1' AND JMSCorrelationID = 'c-1' AND JMSXUserID = 'guest'",
            "größe = 7 AND decimal = 3.14 AND _under$ = 1",
            "TRUE OR missing = 1",
            "missing = 1 OR color = 'blue'",
            "-9223372036854775808 < -9223372036854775807",
            "hyphenated_props:x-y = 3 AND weight - 500 = 2000",
        ],
    );
}

#[test]
fn what_is_false() {
    assert_all(
        Some(false),
        &[
            "color = 'Blue'",
            "weight = 2499",
            "urgent = FALSE",
            "NOT urgent",
            "FALSE AND missing = 1",
            "missing = 1 AND color = 'red'",
            // Types that cannot be compared.
            "color = 3",
            "color <> 3",
            "weight = 'blue'",
            "urgent = 1",
            "urgent = 'true'",
            "count = 10",
            "color > 3",
            "weight IN ('2500')",
            "weight NOT IN ('2500')",
            "weight LIKE '2%'",
            "weight NOT LIKE '2%'",
            "color",
            "weight",
            "weight BETWEEN 1 AND 2",
        ],
    );
}

#[test]
fn what_is_unknown() {
    assert_all(
        None,
        &[
            "missing = 1",
            "missing <> 1",
            "NOT missing = 1",
            "missing > 1 OR color = 'red'",
            "missing > 1 AND color = 'blue'",
            "missing IN ('a')",
            "missing NOT IN ('a')",
            "missing LIKE 'a'",
            "missing NOT LIKE 'a'",
            "missing BETWEEN 1 AND 2",
            "missing NOT BETWEEN 1 AND 2",
            "missing",
            "NOT missing",
            "weight + missing > 1",
            "weight / 0 = 1",
            "weight * 9223372036854775807 > 1",
            "color + 1 > 1",
            "JMSReplyTo = 'x'",
        ],
    );
}

#[test]
fn texts_are_what_they_spell_if_the_selector_says_so() {
    let convert = |selector: &str| truth(&format!("{CONVERT_STRINGS}{selector}"), &message());
    for selector in [
        "count = 10 AND count > 9 AND 11 > count AND count < weight AND count = 10.0",
        "flag = TRUE AND flag AND TRUE = flag",
        "count + 1 = 11 AND -count = -10",
        "count = '10' AND color = 'blue'",
        "count BETWEEN 10 AND 11",
        "urgent = 'true'",
    ] {
        assert_eq!(convert(selector), Some(true), "{selector}");
    }
    for selector in ["color > 3", "color = 3", "color", "color = TRUE", "count = '10.0'"] {
        assert_eq!(convert(selector), Some(false), "{selector}");
    }
    assert_eq!(convert("hyphenated_props:x-y = 3"), Some(true));
    assert_eq!(convert("missing > 3"), None);
}

#[test]
fn what_no_selector_is_is_said_with_its_place() {
    for (selector, column, why) in [
        ("", 1, "a name, a value or '(' is expected here"),
        ("a =", 4, "a name, a value or '(' is expected here"),
        ("a == 1", 4, "a name, a value or '(' is expected here"),
        ("a = 1 b", 7, "AND, OR or the end is expected here"),
        ("a = 1 = 2", 7, "AND, OR or the end is expected here"),
        ("1", 1, "a condition is expected here, and not a value"),
        ("'a'", 1, "a condition is expected here, and not a value"),
        ("a AND 1", 7, "a condition is expected here, and not a value"),
        ("NOT 1", 5, "a condition is expected here, and not a value"),
        ("a + 1", 1, "a condition is expected here, and not a value"),
        ("a > 'x'", 5, "only numbers have an order"),
        ("TRUE < a", 1, "only numbers have an order"),
        ("(a > 1) = TRUE", 1, "a condition cannot be compared"),
        ("a + 'x' = 1", 5, "a number is expected here"),
        ("a BETWEEN 'a' AND 'b'", 11, "a number is expected here"),
        ("a BETWEEN 1 OR 2", 13, "AND is expected here"),
        ("a IN ()", 7, "a text in quotes is expected here"),
        ("a IN (1)", 7, "a text in quotes is expected here"),
        ("a IN ('x' 'y')", 11, "',' or ')' is expected here"),
        ("1 IN ('x')", 1, "a property's name is expected here"),
        ("a LIKE 1", 8, "a text in quotes is expected here"),
        ("a LIKE 'x' ESCAPE 'ab'", 19, "one character is expected here"),
        ("a LIKE 'x!' ESCAPE '!'", 8, "the pattern ends with its escape character"),
        ("a IS 1", 6, "NULL is expected here"),
        ("a NOT = 1", 7, "BETWEEN, IN or LIKE is expected here"),
        ("a = 'x", 5, "the text has no closing quote"),
        ("ä = 'x", 5, "the text has no closing quote"),
        ("a = #", 5, "'#' has no meaning here"),
        ("a != 1", 3, "'!' has no meaning here"),
        ("and = 1", 1, "a name, a value or '(' is expected here"),
        ("a = null", 5, "a name, a value or '(' is expected here"),
        ("(a = 1", 7, "')' is expected here"),
        ("a = 99999999999999999999", 5, "this is no integer of 64 bits"),
        ("a = 9223372036854775808", 5, "this is no integer of 64 bits"),
        ("a = 08", 5, "this is no integer of 64 bits"),
        ("a = 0x", 5, "this is no integer of 64 bits"),
        ("a = 5x", 6, "a number ends here, and a name may not begin"),
    ] {
        let error = Selector::parse(selector).expect_err(selector);
        assert_eq!((error.column, &*error.why), (column, why), "{selector}");
    }
}

#[test]
fn depth_and_length_are_limited_and_chains_are_not_deep() {
    let nested = |n: usize| format!("{}a{}", "(".repeat(n), ")".repeat(n));
    assert!(Selector::parse(&nested(64)).is_ok());
    for deep in [
        nested(65),
        format!("{}a", "NOT ".repeat(65)),
        format!("{}a > 1", "- ".repeat(65)),
        format!("a{} > 1", "+1".repeat(65)),
    ] {
        assert!(Selector::parse(&deep).unwrap_err().why.contains("nested"), "{deep}");
    }
    let chain = vec!["a = 1"; 400].join(" OR ");
    assert!(Selector::parse(&chain).is_ok());
    let long = format!("a = '{}'", "x".repeat(SELECTOR_BYTES_MAX));
    assert!(Selector::parse(&long).unwrap_err().why.contains("longer"));
}

#[test]
fn no_text_panics() {
    let words = [
        "a", "'", "'x'", "(", ")", "=", "<", ">", "1", "0x", "1.", ".5", "e5", "é", "NOT", "IN",
        "LIKE", "ESCAPE", "BETWEEN", "AND", "IS", "NULL", ",", "-", "*", "/", "+", "TRUE", "L",
        " ", "%", "",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let raw = message().to_bytes();
    let mut parsed = 0;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..(state % 9) + 1 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push_str(words[(state % words.len() as u64) as usize]);
            if state & 1 << 40 != 0 {
                text.push(' ');
            }
        }
        if let Ok(selector) = Selector::parse(&text) {
            parsed += 1;
            selector.selects(&Candidate::new(&raw));
        }
    }
    assert!(parsed > 100, "{parsed}");
}

#[test]
fn a_message_without_properties_or_with_broken_ones_has_none() {
    for raw in [&[][..], &[0, 0], &[0xff, 0xfc, 1]] {
        let candidate = Candidate::new(raw);
        assert!(Selector::parse("a IS NULL AND JMSPriority = 4").unwrap().selects(&candidate));
    }
}

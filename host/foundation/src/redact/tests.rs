use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

fn knowing(secrets: &[&[u8]]) -> Redactor {
    let redactor = Redactor::new();
    for secret in secrets {
        redactor.add(&Secret::new(*secret)).unwrap();
    }
    redactor
}

fn base64(bytes: &[u8]) -> String {
    let mut child =
        Command::new("base64").arg("-w0").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

/// Returns the text with every byte percent-encoded except those in `keep`.
fn percent(text: &str, keep: &str, upper: bool) -> String {
    let each = |byte: u8| match byte {
        _ if byte.is_ascii_alphanumeric() || keep.as_bytes().contains(&byte) => char::from(byte).to_string(),
        _ if upper => format!("%{byte:02X}"),
        _ => format!("%{byte:02x}"),
    };
    text.bytes().map(each).collect()
}

const SECRET: &str = "p&ss/w+rd \"ö\\?> of~1";

#[test]
fn a_secret_is_redacted_wherever_it_occurs() {
    let redactor = knowing(&[SECRET.as_bytes(), b"hunter22"]);
    let text = format!("user=a password={SECRET}, {SECRET}{SECRET} and hunter22.");
    let redacted = redactor.redact(&text);
    assert_eq!(redacted, "user=a password=<secret>, <secret><secret> and <secret>.");
    assert_eq!(redactor.redact_bytes(text.as_bytes()), redacted.as_bytes());
}

#[test]
fn text_without_a_secret_is_not_copied() {
    let redactor = knowing(&[SECRET.as_bytes()]);
    for text in ["", "restored 12 % of 3+4 files from C:\\base", "cGxhaW4gdGV4dA=="] {
        assert!(matches!(redactor.redact(text), Cow::Borrowed(same) if same == text));
        assert!(matches!(Redactor::new().redact(text), Cow::Borrowed(_)));
    }
}

#[test]
fn a_secret_in_base64_is_redacted_at_every_offset_and_with_every_end() {
    let redactor = knowing(&[SECRET.as_bytes()]);
    for before in ["", "u", "us", "use", "user:", "someone:"] {
        for after in ["", "!", "!!", "!!!"] {
            let encoded = base64(format!("{before}{SECRET}{after}").as_bytes());
            let url_safe = encoded.replace('+', "-").replace('/', "_");
            for form in [&encoded, &url_safe, encoded.trim_end_matches('='), url_safe.trim_end_matches('=')] {
                let redacted = redactor.redact(form).into_owned();
                assert!(redacted.contains(REDACTED), "{form}");
                // The rest of the text decodes only to the bytes around the secret.
                assert!(
                    redacted.len() <= REDACTED.len() + (before.len() + after.len()) * 4 / 3 + 2,
                    "{redacted}"
                );
                let percent = percent(form, "", true);
                assert!(redactor.redact(&percent).contains(REDACTED), "{percent}");
            }
        }
    }
    let header = format!("Authorization: Basic {}", base64(format!("backup:{SECRET}").as_bytes()));
    assert!(redactor.redact(&header).starts_with("Authorization: Basic YmFja3Vw"));
}

#[test]
fn a_percent_encoded_secret_is_redacted_whichever_characters_are_encoded() {
    let redactor = knowing(&[SECRET.as_bytes()]);
    for keep in ["", "-._~", "-_.!~*'()", "&/+?>~", "*-._"] {
        for upper in [true, false] {
            let encoded = percent(SECRET, keep, upper);
            let text = format!("GET /?token={encoded}&x=1%20");
            assert_eq!(redactor.redact(&text), "GET /?token=<secret>&x=1%20", "{encoded}");
            // A program that writes `+` for a space encodes a plus as `%2B`.
            if !keep.contains('+') {
                let form = encoded.replace("%20", "+");
                assert_eq!(redactor.redact(&form), REDACTED, "{form}");
            }
        }
    }
}

#[test]
fn a_secret_with_the_escapes_of_json_or_rust_is_redacted() {
    let redactor = knowing(&[SECRET.as_bytes(), b"line one\nline two", "key \u{1F511} end".as_bytes()]);
    for secret in [SECRET, "line one\nline two", "key \u{1F511} end"] {
        let json = serde_json::to_string(secret).unwrap();
        let nested = serde_json::to_string(&format!("a{}", percent(secret, "", false))).unwrap();
        let ascii: String = json
            .encode_utf16()
            .map(|unit| match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
                _ => format!("\\u{unit:04x}"),
            })
            .collect();
        for text in [json, nested, ascii, format!("{secret:?}"), secret.escape_default().to_string()] {
            let redacted = redactor.redact(&text);
            assert!(redacted.contains(REDACTED) && redacted.len() <= REDACTED.len() + 3, "{text} {redacted}");
        }
    }
}

/// Returns the text with every character as a character reference except letters and digits.
fn references(text: &str, written: impl Fn(char) -> String) -> String {
    text.chars()
        .map(|char| if char.is_ascii_alphanumeric() { char.to_string() } else { written(char) })
        .collect()
}

#[test]
fn a_secret_with_character_references_is_redacted() {
    let redactor = knowing(&[SECRET.as_bytes()]);
    let decimal = references(SECRET, |char| format!("&#{};", u32::from(char)));
    let hexadecimal = references(SECRET, |char| format!("&#x{:04x};", u32::from(char)));
    let five = SECRET.replace('&', "&amp;").replace('"', "&quot;").replace('>', "&gt;");
    let named =
        five.replace('/', "&sol;").replace('+', "&plus;").replace('\\', "&bsol;").replace('?', "&quest;");
    for text in [&decimal, &hexadecimal, &five, &named] {
        assert_eq!(redactor.redact(&format!("<p>{text}</p>")), "<p><secret></p>", "{text}");
    }
}

#[test]
fn a_secret_in_two_encodings_one_within_the_other_is_redacted() {
    let redactor = knowing(&[SECRET.as_bytes()]);
    let encodings: [fn(&str) -> String; 3] = [
        |text| percent(text, "", false),
        |text| {
            serde_json::to_string(text).unwrap().trim_matches('"').replace('/', "\\/").replace('&', "\\u0026")
        },
        |text| references(text, |char| format!("&#x{:X};", u32::from(char))),
    ];
    for inner in encodings {
        for outer in encodings {
            let text = outer(&inner(SECRET));
            assert_eq!(redactor.redact(&text), REDACTED, "{text}");
        }
    }
}

#[test]
fn a_secret_in_hexadecimal_is_redacted() {
    let redactor = knowing(&[b"hunter22"]);
    assert_eq!(redactor.redact("x 68756e7465723232 y 68756E7465723232"), "x <secret> y <secret>");
}

#[test]
fn each_line_of_a_multi_line_secret_is_redacted() {
    let pem = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END PRIVATE KEY-----\n";
    let redactor = knowing(&[pem.as_bytes()]);
    assert_eq!(redactor.redact(pem), REDACTED);
    assert_eq!(redactor.redact("log: AQEFAASCBKcwggSjAgEAAoIB\r\n"), "log: <secret>\r\n");
    assert_eq!(redactor.redact(&pem.replace('\n', "\n    ")).matches(REDACTED).count(), 4);
    // The line feed at the end of a file is not printed.
    let redactor = knowing(&[b"hunter22\n"]);
    assert_eq!(redactor.redact(&base64(b"hunter22")), REDACTED);
}

#[test]
fn a_secret_that_is_not_utf_8_is_redacted_in_bytes_and_in_text() {
    let secret = b"\xF0\x9Fbinary\xFF\x01";
    let redactor = knowing(&[secret]);
    assert_eq!(&*redactor.redact_bytes(&[b"a".as_slice(), secret, b"b"].concat()), b"a<secret>b");
    assert_eq!(redactor.redact(&String::from_utf8_lossy(secret)), REDACTED);
    // A match that covers part of a character redacts the whole character.
    let redactor = knowing(&[b"\x82\xACabcdef"]);
    assert_eq!(redactor.redact("x\u{20AC}abcdefg"), "x<secret>g");
}

#[test]
fn a_short_secret_is_redacted_only_as_a_whole_word() {
    let redactor = knowing(&[b"base", b"hunter2", b"$!a"]);
    for (text, told) in [
        ("password=base", "password=<secret>"),
        ("user:base@host", "user:<secret>@host"),
        ("it is base.", "it is <secret>."),
        ("basebackup in database base_backup", "basebackup in database base_backup"),
        ("b\u{e4}base", "b\u{e4}base"),
        ("\"a\\nbase\"", "\"a\\n<secret>\""),
        ("x%3Dbase", "x%3D<secret>"),
        ("hunter2 hunter22", "<secret> hunter22"),
        ("b=$!a", "b=<secret>"),
    ] {
        assert_eq!(redactor.redact(text), told, "{text}");
    }
}

#[test]
fn a_very_short_secret_is_redacted_only_as_a_value() {
    let redactor = knowing(&[b"a", b"", b"xyz"]);
    for (text, told) in [
        ("a file of a method", "a file of a method"),
        ("a", "<secret>"),
        ("a\n", "<secret>\n"),
        ("password=a user=b", "password=<secret> user=b"),
        ("postgres:a@host", "postgres:<secret>@host"),
        ("{\"password\":\"a\"}", "{\"password\":\"<secret>\"}"),
        ("'xyz' and `a`", "'<secret>' and `<secret>`"),
        ("\"a file\"", "\"a file\""),
        ("error: a file, x=abc", "error: a file, x=abc"),
        ("password=xyz&b", "password=<secret>&b"),
    ] {
        assert_eq!(redactor.redact(text), told, "{text}");
    }
}

#[test]
fn a_very_short_secret_with_much_white_space_is_redacted_with_all_of_it() {
    let redactor = knowing(&[b"  \t a\t\n\n"]);
    assert_eq!(redactor.redact("from  \t a\t\n\nto"), "from<secret>to");
    assert_eq!(redactor.redact("a file a\n"), "a file a\n");
}

#[test]
fn a_secret_that_is_added_later_is_known_to_every_clone() {
    let redactor = knowing(&[b"first secret"]);
    let clone = redactor.clone();
    let thread = std::thread::spawn(move || clone.add(&Secret::new("second secret")));
    thread.join().unwrap().unwrap();
    assert_eq!(redactor.redact("first secret, second secret"), "<secret>, <secret>");
    assert_eq!(format!("{redactor:?}"), "Redactor of 2 secrets");
}

#[test]
fn more_secrets_than_the_bound_are_refused_and_the_others_stay_known() {
    let redactor = knowing(&[b"first secret"]);
    assert_eq!(redactor.add(&Secret::new(vec![b'x'; MOST_BYTES])).unwrap_err(), CannotRedact::TooMany);
    assert_eq!(redactor.redact("first secret"), REDACTED);
    for _again in 0..3 {
        redactor.add(&Secret::new(vec![b'x'; 20_000])).unwrap();
    }
}

#[test]
fn broken_escapes_are_left_as_they_are() {
    let redactor = knowing(&[b"secret words"]);
    for text in [
        "&",
        "&amp",
        "&#",
        "&#x;",
        "&#xzz;",
        "&none;",
        "100%",
        "%",
        "%4",
        "%zz",
        "\\",
        "\\u",
        "\\u12",
        "\\u{",
        "\\u{110000}",
        "\\x",
        "\\ud800",
        "+",
        "a\\",
    ] {
        assert_eq!(redactor.redact(text), text);
        assert_eq!(
            redactor.redact(&format!("{text} secret words {text}")),
            format!("{text} <secret> {text}")
        );
    }
}

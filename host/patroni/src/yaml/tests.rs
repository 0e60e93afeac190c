//! The expected values come from `yaml.safe_load` in PyYAML 6.0.

use super::*;
use crate::python;

fn printed(text: &str) -> String {
    let document =
        Document::read("p.yml", text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    python::str(document.root()).unwrap()
}

#[track_caller]
fn refused(text: &str, line: usize, part: &str) {
    let error = match Document::read("p.yml", text.as_bytes()) {
        Ok(document) => panic!("{text:?} was read: {document:?}"),
        Err(error) => error,
    };
    assert_eq!(error.line, Some(line), "{text:?}: {error}");
    assert!(error.message.contains(part), "{text:?}: {error}");
}

#[test]
fn plain_scalars_have_the_types_of_yaml_1_1() {
    for (yaml, python) in [
        (
            "[yes, Yes, YES, yEs, on, Off, y, n, TRUE, no]",
            "[True, True, True, 'yEs', True, False, 'y', 'n', True, False]",
        ),
        (
            "[0700, 0o17, 017, 08, 0x1f, 0b11, -0, +5, 1_000, 0]",
            "[448, '0o17', 15, '08', 31, 3, 0, 5, 1000, 0]",
        ),
        ("[1:30, 12:30:45, 1:60, -1:30, 5432:5433]", "[90, 45045, '1:60', -90, '5432:5433']"),
        (
            "[1e3, 1.0e+3, .5, 1., 1.5e3, 1_0.5, -.5, 190:20:30.15]",
            "['1e3', 1000.0, 0.5, 1.0, '1.5e3', 10.5, '-.5', 685230.15]",
        ),
        ("[.inf, -.INF, +.Inf, .NaN, -.nan]", "[inf, -inf, inf, nan, '-.nan']"),
        ("[~, null, Null, NULL, nUll, '~', \"null\"]", "[None, None, None, None, 'nUll', '~', 'null']"),
        ("{a: , b: ~, c: ''}", "{'a': None, 'b': None, 'c': ''}"),
        ("{on: 1, 5: x, ~: y, 1.5: z}", "{True: 1, 5: 'x', None: 'y', 1.5: 'z'}"),
        ("[!!int '5', !!str 5, !!bool 'no', !!float 5, !!null x, ! 5]", "[5, '5', False, 5.0, None, 5]"),
        ("{=: 1, '<<': 2}", "{'=': 1, '<<': 2}"),
        (
            "[100M, 10.0.0.1, a b, 1.2.3, 2026-1-1, 99999999999999999999]",
            "['100M', '10.0.0.1', 'a b', '1.2.3', '2026-1-1', 99999999999999999999]",
        ),
    ] {
        assert_eq!(printed(yaml), python, "{yaml}");
    }
}

#[test]
fn texts_keep_their_characters() {
    for (yaml, python) in [
        ("a: 'it''s'", "{'a': \"it's\"}"),
        ("a: \"x\\ty\\/\"", "{'a': 'x\\ty/'}"),
        ("a: |\n  x\ty\n  z\n", "{'a': 'x\\ty\\nz\\n'}"),
        ("a: >-\n  x\n  y\n", "{'a': 'x y'}"),
        ("a: b\n  c\n", "{'a': 'b c'}"),
        ("a: 'b\tc'\n", "{'a': 'b\\tc'}"),
        ("\u{feff}a: b # c\n...\n", "{'a': 'b'}"),
        ("%YAML 1.1\n---\na: b\n", "{'a': 'b'}"),
        ("a:\n- b\nc: [d, {e: f}]\n", "{'a': ['b'], 'c': ['d', {'e': 'f'}]}"),
        ("? a\n: b\n", "{'a': 'b'}"),
        ("{\"a\":1, b:2, c: 3}", "{'a': 1, 'b:2': None, 'c': 3}"),
        ("# x\ty\na: b #\tz\n", "{'a': 'b'}"),
    ] {
        assert_eq!(printed(yaml), python, "{yaml}");
    }
}

#[test]
fn anchors_aliases_and_merges_work() {
    for (yaml, python) in [
        ("a: &x b\nc: *x\n", "{'a': 'b', 'c': 'b'}"),
        ("a: &x\nb: *x\n", "{'a': None, 'b': None}"),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\n", "{'a': {'b': 1, 'c': 2}, 'd': {'b': 1, 'c': 3}}"),
        (
            "a: &x {b: 1}\ne: &y {b: 2, f: 3}\nd: {g: 0, b: 4, <<: [*x, *y]}\n",
            "{'a': {'b': 1}, 'e': {'b': 2, 'f': 3}, 'd': {'b': 4, 'f': 3, 'g': 0}}",
        ),
        ("<<: {b: 1}\n<<: {c: 2}\n", "{'b': 1, 'c': 2}"),
    ] {
        assert_eq!(printed(yaml), python, "{yaml}");
    }
}

#[test]
fn text_that_pyyaml_refuses_is_refused_with_its_line() {
    for (yaml, line, part) in [
        ("a: =\n", 1, "plain `=`"),
        ("a: b\nc: <<\n", 2, "`<<` only as a key"),
        ("a: {<<: 5}\n", 1, "takes a mapping"),
        ("a: b\nc: !vault x\n", 2, "names a type that no setting"),
        ("a: !!set {x: }\n", 1, "names a type that no setting"),
        ("a: !!int x\n", 1, "the tag says int"),
        ("a: b\n[c]: d\n", 2, "cannot be a key"),
        ("a: b\n---\nc: d\n", 2, "second document"),
        ("a: b\nc: @x\n", 2, "not YAML"),
        ("a: 'b\n", 1, "not YAML"),
        ("a: 0x\u{85}b\n", 1, "U+0085"),
        ("a: b\u{7}\n", 1, "U+0007"),
        ("a: 0xffffffffffffffffffffffffffffffffff\n", 1, "128 bits"),
    ] {
        refused(yaml, line, part);
    }
}

#[test]
fn a_tab_outside_strings_and_comments_is_refused_as_by_pyyaml() {
    for (yaml, line) in [
        ("a:\tb\n", 1),
        ("a: b\t\n", 1),
        ("a: b\t# c\n", 1),
        ("a: 'b'\t\n", 1),
        ("\ta: b\n", 1),
        ("a:\n\tb: c\n", 2),
        ("a:\n  - x\n\t- y\n", 3),
        ("a: |\n\tx\n", 2),
        ("a: b\tc\n", 1),
        ("a: [1,\t2]\n", 1),
        ("- \tx\n", 1),
        ("a: b\n\t\nc: d\n", 2),
        ("a: b\n  \tc\n", 2),
    ] {
        refused(yaml, line, "tab");
    }
}

#[test]
fn a_repeated_key_is_refused_with_both_lines() {
    refused("a: 1\nb: 2\na: 3\n", 3, "the key `a` is here and in line 1");
    refused("x:\n  yes: 1\n  true: 3\n", 3, "the key `true` is here and in line 2");
    refused("x: {1: a, 1.0: b}\n", 1, "is here and in line 1");
    assert_eq!(
        printed("a: {b: 1}\nc: {b: 1}\n'1': x\n1: y\n"),
        "{'a': {'b': 1}, 'c': {'b': 1}, '1': 'x', 1: 'y'}"
    );
}

#[test]
fn a_key_that_two_merged_mappings_have_is_refused_unless_the_mapping_has_it_too() {
    refused("a:\n  <<: [{b: 1}, {b: 2}]\n", 2, "PyYAML's releases differ");
    refused("<<: {b: 1}\n<<: {b: 2}\n", 2, "PyYAML's releases differ");
    assert_eq!(printed("x: &x {b: 1}\na: {<<: [*x, *x]}\n"), "{'x': {'b': 1}, 'a': {'b': 1}}");
}

#[test]
fn aliases_and_merges_that_multiply_and_recursion_end_in_an_error() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    let mut merges = String::from("a0: &a0 {b: 1, c: 2}\n");
    for level in 1..40 {
        let below = level - 1;
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{below}"); 10].join(", ")));
        merges.push_str(&format!(
            "a{level}: &a{level} {{<<: [{}]}}\n",
            vec![format!("*a{below}"); 10].join(", ")
        ));
    }
    for text in [bomb, merges] {
        let error = Document::read("p.yml", text.as_bytes()).unwrap_err();
        assert!(error.message.contains("more than 200000 values"), "{error}");
    }
    refused("a: &b [1, *b]\n", 1, "the collection that contains it");
}

#[test]
fn deep_nesting_and_large_files_end_in_an_error() {
    let flow = format!("a: {}{}", "[".repeat(63), "]".repeat(63));
    Document::read("p.yml", flow.as_bytes()).unwrap();
    for text in [format!("a: {}", "[".repeat(100_000)), format!("a: {}{}", "[".repeat(64), "]".repeat(64))] {
        let error = Document::read("p.yml", text.as_bytes()).unwrap_err();
        assert!(error.message.contains("more than 64 deep"), "{error}");
    }
    let block: String = (0..70).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    refused(&block, 65, "more than 64 deep");
    let large = vec![b'#'; FILE_LIMIT + 1];
    let error = Document::read("p.yml", &large).unwrap_err();
    assert_eq!((error.line, error.message.contains("larger than 1048576 bytes")), (None, true), "{error}");
    Document::read("p.yml", format!("a: b\n#{}", "x".repeat(FILE_LIMIT - 6)).as_bytes()).unwrap();
}

#[test]
fn bytes_that_are_not_utf_8_are_refused_with_their_line() {
    for (bytes, line, part) in
        [(&b"a: b\nc: \xe9\n"[..], 2, "Latin-1"), (b"\xff\xfea\0:\0", 1, "UTF-16"), (b"\0\xff", 1, "binary")]
    {
        let error = Document::read("p.yml", bytes).unwrap_err();
        assert_eq!(error.line, Some(line));
        assert!(error.message.contains(part), "{error}");
    }
    let error = Document::read("p.yml", b"").unwrap_err();
    assert!(error.message.contains("empty"), "{error}");
}

#[test]
fn every_value_has_its_line() {
    let text = "a:\n  b: &x 1\n  c:\n  - d\n  -\n    e: f\ng: *x\n";
    let document = Document::read("p.yml", text.as_bytes()).unwrap();
    let root = document.root();
    let a = root.entry("a").unwrap();
    assert_eq!(a.0.line(), 1);
    let c = a.1.entry("c").unwrap();
    assert_eq!(c.0.line(), 3);
    let lines: Vec<_> = c.1.items().unwrap().map(Element::line).collect();
    assert_eq!(lines, [4, 6]);
    let g = root.entry("g").unwrap();
    assert_eq!((g.0.line(), g.1.line()), (7, 7), "an alias has its own line, not that of its anchor");
}

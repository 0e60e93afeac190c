//! Compares how Understudy reads Patroni's configuration with Patroni's own code and with PyYAML, for typical files and for random changes
//! of these files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the counts are for the reader of the test's output")]

use patroni::{Input, convert, python_text};
use serde::{Deserialize, Serialize};
use tests::patroni::Driver;
use tests::program::fast_or_full;

/// The seed of the random changes, so that they are the same every time.
const SEED: u64 = 0x00DE_2517;

/// The lines that every file has in addition to those of its case.
const HEAD: &str = "scope: batman\nname: second\n";
const POSTGRESQL: &str = "\
postgresql:
  data_dir: /data
  bin_dir: /bin15
  authentication: &login
    replication: {username: replicator, password: 'a: b'}
";

/// Lines below `postgresql` in files for which Patroni and Understudy must try the same methods. Every command has an absolute path.
const FILES: [&str; 20] = [
    "",
    "  create_replica_methods: []\n  create_replica_method: [m]\n  m: {command: /x}\n",
    "  create_replica_methods:\n    - wal_e\n    - basebackup\n  wal_e:\n    command: /opt/restore 'a b' c\n    no_leader: 1\n    envdir: /etc/wal-e.d/env\n    use_iam: yes\n    mode: 0700\n    ratio: 1.50\n    empty:\n    when: 12:30:45\n  basebackup:\n    max-rate: '100M'\n",
    "  create_replica_methods: [pgbackrest, basebackup]\n  pgbackrest:\n    command: /usr/bin/pgbackrest --stanza=main --delta restore\n    keep_data: True\n    no_params: True\n  basebackup: {max-rate: '100M'}\n",
    "  create_replica_methods: [basebackup]\n  basebackup:\n    - verbose\n    - max-rate: '100M'\n    - label: \"'a b'\"\n    - checkpoint=fast\n",
    "  basebackup: {max-rate: 1M, checkpoint: fast, label: '', progress: ~}\n",
    "  basebackup: [format: t, verbose, {max-rate: 5}, 7, {a: b, c: d}]\n",
    "  create_replica_methods: [m, m]\n  m: {command: /x, no_params: 'false', keep_data: 1, a: b}\n",
    "  create_replica_methods: [m]\n  m: {command: /x, no_params: off, no_leader: on, a: [1, it's, ~], b: {c: 1.0}}\n",
    "  create_replica_methods: [m]\n  m: {a: 1_000, command: \"/x  'y'\\\"z\\\"\", b: .5, c: 1e3, d: 0x1F, e: -0, f: .inf}\n",
    "  create_replica_methods: [m]\n  m: {command: /x, '5': a, 5: b, on: c, ~: d}\n",
    "  create_replica_methods: [m, n]\n  m: &m {command: /x, a: 1, no_params: yes}\n  n: {<<: *m, a: 2, b: 3}\n",
    "  create_replica_methods: [m]\n  m: {<<: [{a: 1, b: 2}, {c: 4}], command: /x, c: 5}\n",
    "  create_replica_methods: [/opt/a/restore.sh, basebackup]\n",
    "  create_replica_methods: [m]\n  m: {command: /x, scope: y, role: z}\n",
    "  create_replica_methods: [m]\n  m:\n    command: >-\n      /x --a\n      --b\n    c: |-\n      d\n    e: 'it''s'\n    f: \"g h\"\n",
    "  create_replica_methods: [m]\n  m: {command: /x, no_master: 1}\n",
    "  create_replica_method: [m]\n  m: {command: /x, z: 'a # b'} # c\n",
    "  create_replica_methods: [m]\n  m: {command: /x, a: !!str 5, b: !!int '7', c: ! 5, d: 'yes'}\n",
    "  create_replica_methods: {m: 1, basebackup: 2}\n  m: {command: /x}\n",
];

/// Dynamic configurations, each with a file's lines below `postgresql`.
const DYNAMIC: [(&str, &str); 6] = [
    (
        "postgresql: {create_replica_methods: [m], m: {command: /y, a: b}, data_dir: /no}\n",
        "  m: {command: /x}\n",
    ),
    (
        "postgresql: {create_replica_methods: [m], m: {command: /y, a: b}, basebackup: [verbose]}\n",
        "  create_replica_methods: []\n",
    ),
    (
        "standby_cluster: {host: h, create_replica_methods: [m, basebackup]}\n",
        "  create_replica_methods: [n]\n  m: {command: /x}\n  n: {command: /y}\n",
    ),
    ("standby_cluster: {port: 5433, host: h}\n", "  create_replica_methods: [m]\n  m: {command: /x}\n"),
    (
        "standby_cluster: {primary_slot_name: s, create_replica_methods: [m]}\n",
        "  create_replica_methods: [n]\n  n: {command: /y}\n",
    ),
    ("postgresql:\nstandby_cluster:\n", "  create_replica_methods: [n]\n  n: {command: /y}\n"),
];

#[derive(Serialize)]
struct Case<'c> {
    local: &'c str,
    dynamic: Option<&'c str>,
}

#[derive(Debug, Deserialize)]
struct Calls {
    calls: Vec<Vec<String>>,
    raised: Option<String>,
}

/// Returns the programs that Understudy would run with the converted configuration, each with its arguments.
fn ours(local: &str, dynamic: Option<&str>) -> Vec<Vec<String>> {
    let dynamic = dynamic.map(|text| Input { name: "dynamic.yml", bytes: text.as_bytes() });
    let conversion = convert(Input { name: "p.yml", bytes: local.as_bytes() }, dynamic, "/u.toml").unwrap();
    let table: toml::Table = conversion.toml.parse().unwrap();
    let texts = |value: &toml::Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let source = table.get("source").and_then(|source| source.get("methods"));
    let methods = texts(source.unwrap_or(&table["replica"]["methods"]));
    methods
        .iter()
        .flat_map(|name| {
            if name == "basebackup" {
                let call = basebackup(&table);
                return vec![call.clone(), call];
            }
            let grants = table["method"][name]["grants"]["programs"].as_table().unwrap();
            let (_, grant) = grants.iter().next().unwrap();
            let mut call = vec![grant["path"].as_str().unwrap().to_owned()];
            for argument in texts(&grant["args"]) {
                match argument.as_str() {
                    "{patroni}" => call.extend(
                        ["--scope=batman", "--role=replica", "--datadir=/data", "--connstring=CONNSTRING"]
                            .map(str::to_owned),
                    ),
                    // A pattern has two braces for each brace of the argument.
                    _ => call.push(argument.replace("{{", "{").replace("}}", "}")),
                }
            }
            vec![call]
        })
        .collect()
}

fn basebackup(table: &toml::Table) -> Vec<String> {
    let mut call: Vec<String> =
        ["pg_basebackup", "--pgdata=/data", "-X", "stream", "--dbname=CONNSTRING"].map(str::to_owned).into();
    let options = table
        .get("method")
        .and_then(|methods| methods.get("basebackup"))
        .map(|section| section["options"].clone());
    let pair = |(name, value): (&String, &toml::Value)| match value {
        toml::Value::String(text) => format!("--{name}={text}"),
        toml::Value::Boolean(true) => format!("--{name}"),
        other => format!("--{name}={other}"),
    };
    match options {
        Some(toml::Value::Table(options)) => call.extend(options.iter().map(pair)),
        Some(toml::Value::Array(items)) => call.extend(items.iter().map(|item| match item {
            toml::Value::String(flag) => format!("--{flag}"),
            item => pair(item.as_table().unwrap().iter().next().unwrap()),
        })),
        _ => {}
    }
    call
}

/// Splits the arguments of a call into those whose order matters and those whose order does not. The order of Patroni's four parameters
/// does not matter, because Patroni puts a parameter in the place of a section's key with the same name. The order of `pg_basebackup`'s
/// options does not matter, because TOML tables have no order.
fn normal(call: &[String]) -> (Vec<&String>, Vec<&String>) {
    let of_the_cluster = ["--scope=", "--role=", "--datadir=", "--connstring="];
    let is_basebackup = call[0] == "pg_basebackup";
    let has_no_order =
        |argument: &&String| is_basebackup || of_the_cluster.iter().any(|own| argument.starts_with(own));
    let mut others: Vec<_> = call.iter().filter(has_no_order).collect();
    others.sort();
    (call.iter().filter(|argument| !has_no_order(argument)).collect(), others)
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_converted_methods_are_called_as_patroni_calls_them() {
    let mut patroni = Driver::reading().unwrap();
    let files = FILES.iter().map(|lines| (None, *lines));
    for (dynamic, lines) in files.chain(DYNAMIC.iter().map(|(dynamic, lines)| (Some(*dynamic), *lines))) {
        let local = format!("{HEAD}{POSTGRESQL}{lines}");
        let theirs: Calls = patroni.run(&Case { local: &local, dynamic }).unwrap();
        assert_eq!(theirs.raised, None, "{local}");
        let ours = ours(&local, dynamic);
        let pairs: Vec<_> = theirs.calls.iter().map(|call| normal(call)).collect();
        assert_eq!(ours.iter().map(|call| normal(call)).collect::<Vec<_>>(), pairs, "{local}{dynamic:?}");
    }
}

#[derive(Serialize)]
struct Text<'t> {
    yaml: &'t str,
}

#[derive(Deserialize)]
struct Printed {
    text: Option<String>,
    error: Option<String>,
}

/// Messages for texts that PyYAML accepts and the conversion refuses on purpose.
const STRICTER: [&str; 10] = [
    "PyYAML's releases differ",
    "is here and in line",
    "the collection that contains it",
    "collections are nested",
    "if every alias is replaced",
    "names a type that no setting",
    "which PyYAML reads as a line end",
    "the number does not fit",
    "cannot be converted to an argument",
    "the file is empty",
];

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn yaml_is_read_as_pyyaml_reads_it() {
    let mut pyyaml = Driver::reading().unwrap();
    let example =
        std::fs::read_to_string(tests::program::project().join("examples/patroni/patroni.yml")).unwrap();
    let mut texts: Vec<String> = FILES.iter().map(|lines| format!("{HEAD}{POSTGRESQL}{lines}")).collect();
    texts.push(example);
    let mut random = fastrand::Rng::with_seed(SEED);
    let (mut equal, mut both_refused, mut stricter, mut laxer, mut by_parser) = (0, 0, 0, Vec::new(), 0);
    let changes = fast_or_full(3000, 30_000);
    for number in 0..changes as usize + texts.len() {
        let text = match texts.get(number) {
            Some(text) => text.clone(),
            None => changed(&texts[random.usize(..texts.len())], &mut random),
        };
        let theirs: Printed = pyyaml.run(&Text { yaml: &text }).unwrap();
        let ours = python_text(Input { name: "p.yml", bytes: text.as_bytes() });
        match (ours, theirs.text, theirs.error) {
            (Ok(ours), Some(theirs), _) => {
                assert_eq!(ours, theirs, "{text}");
                equal += 1;
            }
            (Err(_), None, _) => both_refused += 1,
            // YAML 1.2 requires indentation and spaces in more places.
            (Err(error), Some(_), _)
                if ["not YAML: ", "there is a tab here"]
                    .iter()
                    .any(|begin| error.message.starts_with(begin)) =>
            {
                by_parser += 1;
            }
            (Err(error), Some(theirs), _) => {
                let is_meant = STRICTER.iter().any(|part| error.message.contains(part));
                assert!(is_meant, "refused: {error}\nPyYAML: {theirs}\n{text}");
                stricter += 1;
            }
            (Ok(ours), None, error) => laxer.push((text, ours, error)),
        }
    }
    println!(
        "{equal} equal, {both_refused} refused by both, {stricter} only by the conversion, {} only by PyYAML",
        laxer.len()
    );
    for (text, ours, error) in laxer.iter().take(10) {
        println!("---\n{text}\n{ours}\n{error:?}");
    }
    // YAML 1.2 accepts some texts that YAML 1.1 does not. Patroni does not start with such a file, so the result does not matter.
    assert!(laxer.len() * 20 < changes as usize, "only PyYAML refuses {} of {changes} texts", laxer.len());
    assert!(by_parser * 100 < changes, "only the parser refuses {by_parser} of {changes} texts");
    assert!(equal > changes / 8 && both_refused > 0, "{equal} {both_refused}");
}

/// Returns the text with one to three random changes: a character or a line that is removed, doubled or replaced.
fn changed(text: &str, random: &mut fastrand::Rng) -> String {
    const PARTS: [&str; 34] = [
        ":", ": ", "- ", "'", "\"", "#", " #", "{", "}", "[", "]", ",", "&a ", "*a", "|\n", ">-\n", "!!str ",
        "! ", "~", "yes", "0", "1:30", "\t", "\n", "  ", "\\", "<<: ", "? ", "%", "@", "0x1f", "1_0", ".5",
        "null",
    ];
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..random.usize(1..=3) {
        let at = random.usize(..lines.len());
        let line = &mut lines[at];
        let places: Vec<usize> = line.char_indices().map(|(place, _)| place).chain([line.len()]).collect();
        let place = places[random.usize(..places.len())];
        match random.usize(..6) {
            0 => line.insert_str(place, PARTS[random.usize(..PARTS.len())]),
            1 if place < line.len() => {
                line.remove(place);
            }
            2 => line.insert_str(0, &" ".repeat(random.usize(1..4))),
            3 => *line = line.trim_start().to_owned(),
            4 => {
                let twice = line.clone();
                lines.insert(at, twice);
            }
            _ => line.insert_str(place, PARTS[random.usize(..PARTS.len())]),
        }
    }
    lines.join("\n") + "\n"
}

//! `patroni`: converts Patroni's configuration into one for Understudy.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use patroni::{Conversion, FILE_LIMIT, Input, Remark};

use super::{NotStarted, input_name, print};
use crate::cli::PatroniArgs;
use crate::render::Terminal;
use crate::render::text::{json_line, printable};

/// The exit code if everything is carried over.
const ALL: u8 = 0;
/// The exit code if something could not be carried over.
const NOT_ALL: u8 = 1;

/// The exit codes, with what each means.
pub(crate) const EXIT_CODES: [(&str, &str); 3] = [
    ("0", "everything was carried over"),
    ("1", "some settings were not carried over; the output names them and is otherwise complete"),
    (
        "2",
        "usage, or a file cannot be read, is a template or is not a configuration of Patroni; nothing is printed \
             to standard output",
    ),
];

/// The path of the configuration if `--output` does not name another.
const CONFIG: &str = "/etc/understudy/understudy.toml";

/// Prints the conversion and returns the exit code.
pub fn run(args: &PatroniArgs) -> u8 {
    match convert(args) {
        Ok((text, exit_code)) => {
            print(&text);
            exit_code
        }
        Err(error) => {
            Terminal::stderr().line(&format!("understudy: {}", printable(&error.message)));
            error.exit_code
        }
    }
}

fn convert(args: &PatroniArgs) -> Result<(String, u8), NotStarted> {
    let local = read(&args.file).map_err(NotStarted::usage)?;
    let dynamic = match &args.dynamic {
        Some(file) => Some((input_name(file), read(file).map_err(NotStarted::usage)?)),
        None => None,
    };
    let config = match &args.output {
        Some(output) => {
            std::path::absolute(output).map_err(NotStarted::usage)?.to_string_lossy().into_owned()
        }
        None => CONFIG.to_owned(),
    };
    let input = Input { name: &input_name(&args.file), bytes: &local };
    let dynamic = dynamic.as_ref().map(|(name, bytes)| Input { name, bytes });
    let conversion = patroni::convert(input, dynamic, &config).map_err(NotStarted::usage)?;
    if let Some(output) = &args.output {
        write(output, &conversion.toml).map_err(NotStarted::usage)?;
    }
    let exit_code = if conversion.not_carried.is_empty() { ALL } else { NOT_ALL };
    let text = match (args.json, &args.output) {
        (true, _) => format!("{}\n", json_line(&conversion)),
        (false, Some(_)) => for_patroni(&conversion),
        (false, None) => {
            let off = |line: &str| if line.is_empty() { "#\n".to_owned() } else { format!("# {line}\n") };
            let rest: String = for_patroni(&conversion).lines().map(off).collect();
            format!("{}\n{RULE}\n{rest}", conversion.toml)
        }
    };
    Ok((text, exit_code))
}

/// The line between Understudy's configuration and the comments for the operator.
const RULE: &str =
    "# ==================================================================================================";

/// Reads a file or standard input, up to one byte more than may be converted.
fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = FILE_LIMIT as u64 + 1;
    let read = match file == Path::new("-") {
        true => io::stdin().lock().take(limit).read_to_end(&mut bytes),
        false => File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes)),
    };
    match read {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => Err(anyhow::anyhow!(
            "{} is a directory: give one file with the settings of all of its files",
            input_name(file)
        )),
        read => read.map(|_| bytes).with_context(|| format!("cannot read {}", input_name(file))),
    }
}

/// Writes the configuration to a new file. Everybody may read the file, because it contains no secret.
fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let opened = File::options().write(true).create_new(true).mode(0o644).open(file);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {} (an existing file is not replaced)", file.display()))
}

/// Returns the text for the operator: the changes to Patroni's configuration, and the remarks.
fn for_patroni(conversion: &Conversion) -> String {
    let mut text = conversion.patroni.clone();
    for (title, remarks) in
        [("Not carried over:", &conversion.not_carried), ("Worth knowing:", &conversion.notes)]
    {
        if remarks.is_empty() {
            continue;
        }
        text.push_str(&format!("\n# {title}\n"));
        for Remark { file, line, key, reason } in remarks {
            text.push_str(&format!("#   {file}:{line}: {key}: {reason}\n"));
        }
    }
    if conversion.not_carried.is_empty() {
        text.push_str(
            "\n# Everything about the creation of replicas was carried over. Try the configuration with `understudy \
             check`.\n",
        );
    }
    text
}

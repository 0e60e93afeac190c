//! Formats what an attempt used, together with its limits, as one line for a person.

use std::time::Duration;

use replica::Bytes;
use replica::usage::{Amount, ComponentUsage, ProgramUsage, Time, Usage};

use super::text::time;

/// Returns the line for an attempt in which a component ran; `None` for any other attempt.
pub(super) fn line(usage: &Usage) -> Option<String> {
    let ComponentUsage {
        cpu,
        memory,
        host_memory,
        open_files,
        workers,
        log_lines,
        log_bytes,
        written_bytes,
        written_files,
        read_bytes,
        requests,
        network_bytes,
        connection_bytes,
        denials,
        programs,
    } = usage.component.as_ref()?;
    let mut parts = vec![
        format!("time {}", times(usage.wall)),
        format!("processor {}", times(*cpu)),
        format!("memory {}", bytes(*memory)),
        format!("host memory {}", bytes(*host_memory)),
        format!("open files {}", count(*open_files)),
        format!("threads {}", count(*workers)),
        format!("log {} lines, {}", count(*log_lines), bytes(*log_bytes)),
        format!("written {}, {} files", bytes(*written_bytes), count(*written_files)),
        format!("read {} with {} requests", bytes(*read_bytes), count(*requests)),
    ];
    if network_bytes.used > 0 {
        let (all, one) = (bytes(*network_bytes), bytes(*connection_bytes));
        parts.push(format!("network {all}, at most {one} over one connection"));
    }
    parts.push(format!("denied {}", count(*denials)));
    parts.extend(programs.iter().map(|(name, usage)| program(name, usage)));
    Some(format!("used: {}", parts.join("; ")))
}

fn program(name: &str, usage: &ProgramUsage) -> String {
    let ProgramUsage { runs, wall, cpu, memory, processes, written_bytes } = usage;
    let often = if *runs == 1 { String::new() } else { format!("{runs} runs, the longest ") };
    let parts = [
        format!("{often}{}", times(*wall)),
        format!("processor {}", times(*cpu)),
        format!("memory {}", bytes(*memory)),
        format!("processes {}", count(*processes)),
        format!("written {}", bytes(*written_bytes)),
    ];
    format!("program {name}: {}", parts.join(", "))
}

fn beside(used: String, limit: Option<String>) -> String {
    match limit {
        Some(limit) => format!("{used} of {limit}"),
        None => used,
    }
}

fn count(amount: Amount) -> String {
    beside(amount.used.to_string(), amount.limit.map(|limit| limit.to_string()))
}

fn bytes(amount: Amount) -> String {
    beside(Bytes(amount.used).to_string(), amount.limit.map(|limit| Bytes(limit).to_string()))
}

fn times(amount: Time) -> String {
    beside(time(amount.used), amount.limit.map(limit))
}

/// Formats a limit as short as possible: `4 h`, not `4 h 0 min`.
fn limit(limit: Duration) -> String {
    match limit.as_secs() {
        seconds if seconds >= 3600 && seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds if seconds >= 60 && seconds % 60 == 0 && seconds < 3600 => format!("{} min", seconds / 60),
        _ => time(limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_each_used_amount_with_its_limit() {
        let component = ComponentUsage {
            cpu: Time { used: Duration::from_millis(400), limit: Some(Duration::from_secs(4 * 3600)) },
            memory: Amount::of(12 << 20, 256 << 20),
            host_memory: Amount::of(40 << 20, 160 << 20),
            open_files: Amount::of(40, 2048),
            workers: Amount::of(2, None),
            log_lines: Amount::of(12, 10_000),
            log_bytes: Amount::of(1024, 4 << 20),
            written_bytes: Amount::of(3 << 29, None),
            written_files: Amount::of(1200, 5000),
            read_bytes: Amount::of(1 << 30, None),
            requests: Amount::of(123, None),
            denials: Amount::of(2, None),
            ..ComponentUsage::default()
        };
        let wall = Time { used: Duration::from_secs(200), limit: Some(Duration::from_secs(90 * 60)) };
        let shown = "used: time 3 min 20 s of 1 h 30 min; processor 0.4 s of 4 h; memory 12.0 MiB of 256.0 MiB; host memory \
                     40.0 MiB of 160.0 MiB; open files 40 of 2048; threads 2; log 12 of 10000 lines, 1.0 KiB of 4.0 MiB; \
                     written 1.5 GiB, 1200 of 5000 files; read 1.0 GiB with 123 requests; denied 2";
        assert_eq!(line(&Usage { wall, component: Some(component.clone()) }).unwrap(), shown);
        let run = ProgramUsage {
            runs: 1,
            wall: Time { used: Duration::from_secs(65), limit: Some(Duration::from_secs(3600)) },
            cpu: Time { used: Duration::from_secs(20), limit: None },
            memory: Amount::of(200 << 20, 1 << 30),
            processes: Amount::of(5, 512),
            written_bytes: Amount::of(1 << 30, None),
        };
        let several = ProgramUsage { runs: 3, ..run.clone() };
        let programs = [("fetch".to_owned(), run), ("restore".to_owned(), several)].into();
        let network_bytes = Amount::of(1 << 20, 1 << 30);
        let connection_bytes = Amount::of(1 << 10, 1 << 20);
        let component = ComponentUsage { network_bytes, connection_bytes, programs, ..component };
        let more = "network 1.0 MiB of 1.0 GiB, at most 1.0 KiB of 1.0 MiB over one connection; denied 2; program fetch: 1 min 5 s of 1 h, processor 20.0 s, memory 200.0 MiB of \
                    1.0 GiB, processes 5 of 512, written 1.0 GiB; program restore: 3 runs, the longest 1 min 5 s of 1 h, \
                    processor 20.0 s, memory 200.0 MiB of 1.0 GiB, processes 5 of 512, written 1.0 GiB";
        let line = line(&Usage { wall, component: Some(component) }).unwrap();
        assert_eq!(line, shown.replace("denied 2", more));
    }

    #[test]
    fn an_attempt_without_a_component_has_no_line() {
        assert_eq!(line(&Usage::default()), None);
    }
}

//! Links WASI 0.2, all of it: components import interfaces that they never call. What is not granted answers that it
//! is denied.

use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, io, random, sockets};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView};

use crate::files::{FilesData, FilesView};
use crate::network::{NetworkData, NetworkView};
use crate::state::State;

struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

/// Adds every interface of WASI 0.2 that WASI's implementation has, one by one, with this crate's own file system and
/// its own answer to who asks for the network.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    io::error::add_to_linker::<State, Table>(linker, |state| &mut state.table)?;
    io::poll::add_to_linker::<State, Table>(linker, |state| &mut state.table)?;
    io::streams::add_to_linker::<State, Table>(linker, |state| &mut state.table)?;

    clocks::wall_clock::add_to_linker::<State, WasiClocks>(linker, State::clocks)?;
    clocks::monotonic_clock::add_to_linker::<State, WasiClocks>(linker, State::clocks)?;
    random::random::add_to_linker::<State, WasiRandom>(linker, |state| state.wasi.random())?;
    random::insecure::add_to_linker::<State, WasiRandom>(linker, |state| state.wasi.random())?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(linker, |state| state.wasi.random())?;

    cli::exit::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::environment::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::stdin::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::stdout::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::stderr::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(linker, State::cli)?;

    filesystem::types::add_to_linker::<State, FilesData>(linker, FilesView::of)?;
    filesystem::preopens::add_to_linker::<State, FilesData>(linker, FilesView::of)?;

    let options = sockets::network::LinkOptions::default();
    sockets::network::add_to_linker::<State, NetworkData>(linker, &options, NetworkView::of)?;
    sockets::ip_name_lookup::add_to_linker::<State, NetworkData>(linker, NetworkView::of)?;
    sockets::tcp_create_socket::add_to_linker::<State, NetworkData>(linker, NetworkView::of)?;
    sockets::udp_create_socket::add_to_linker::<State, NetworkData>(linker, NetworkView::of)?;
    sockets::instance_network::add_to_linker::<State, WasiSockets>(linker, State::sockets)?;
    // No socket is ever made: these cannot be reached, and WASI's own are told that no address may be used.
    sockets::tcp::add_to_linker::<State, WasiSockets>(linker, State::sockets)?;
    sockets::udp::add_to_linker::<State, WasiSockets>(linker, State::sockets)?;
    Ok(())
}

//! Sequences of valid commands, in any pieces and every framing, against a plain array: every reply must parse, carry
//! the cookie of a request that is under way, and say what the array says.

#![no_main]

use crypto::Unit;
use fuzz::model::{Command, Model, Pending, Place, data};
use fuzz::session;
use fuzz::wire::{Framing, Request, take_handshake};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::collections::HashMap;

const SIZE: usize = 64 * 1024;

/// Commands of one input, so that each is quick.
const MOST: usize = 64;

#[derive(Debug, Arbitrary)]
struct Input {
    framing: Framing,
    small_units: bool,
    pieces: [u8; 6],
    commands: Vec<Command>,
}

/// A command as it is sent.
fn encode(framing: Framing, command: &Command, cookie: u64) -> Vec<u8> {
    let flag = |set: &bool, number: u16| if *set { 1 << number } else { 0 };
    let header = |command, flags, at: &Place, length: u16| {
        let (offset, length) = (at.offset(SIZE), u32::from(length));
        framing.request(Request { command, flags, cookie, offset, length })
    };
    match command {
        Command::Read { at, length, whole } => {
            // Don't Fragment belongs to chunks.
            header(0, if framing == Framing::Simple { 0 } else { flag(whole, 2) }, at, *length)
        }
        Command::Write { at, length, seed, durable } => {
            let payload = flag(&(framing == Framing::Extended), 5);
            let mut out = header(1, flag(durable, 0) | payload, at, *length);
            out.extend(data(*length, *seed));
            out
        }
        Command::Flush => header(3, 0, &Place::Byte(0), 0),
        Command::Trim { at, length, durable } => header(4, flag(durable, 0), at, *length),
        Command::Cache { at, length } => header(5, 0, at, *length),
        Command::Zero { at, length, durable, no_hole } => {
            header(6, flag(durable, 0) | flag(no_hole, 1), at, *length)
        }
        Command::FastZero { at, length, durable, no_hole } => {
            header(6, flag(durable, 0) | flag(no_hole, 1) | 1 << 4, at, *length)
        }
        Command::Status { at, length, one } => header(7, flag(one, 3), at, *length),
        // Numbers from 64 on are far from any that the protocol has. Without PAYLOAD_LEN, which would announce more.
        Command::Odd { number, flags } => {
            header(64 + u16::from(*number), u16::from(*flags & !(1 << 5)), &Place::Byte(0), 0)
        }
    }
}

fuzz_target!(|input: Input| {
    let framing = input.framing;
    let unit = if input.small_units { Unit::B512 } else { Unit::B4096 };
    let export = session::export(SIZE, unit, false);
    let mut model = Model::new(SIZE);
    let (mut stream, mut pending) = (framing.handshake(), HashMap::<u64, Pending>::new());
    for (number, command) in (0_u64..).zip(input.commands.iter().take(MOST)) {
        // Cookies are opaque: they need not count up.
        let cookie = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        stream.extend(encode(framing, command, cookie));
        pending.insert(cookie, model.apply(command, framing != Framing::Simple));
    }
    let (said, ended) = session::run(&export, &stream, &input.pieces);
    assert!(ended.is_ok(), "a client without a fault was cut: {ended:?}");
    let mut replies = said.as_slice();
    take_handshake(&mut replies);
    while !replies.is_empty() {
        let data_len = |cookie| pending.get(&cookie).map_or(0, Pending::data_len);
        let chunk = framing.take(&mut replies, data_len);
        let request = pending.get_mut(&chunk.cookie).expect("a reply to nothing that was asked");
        request.add(chunk.body);
        if chunk.done {
            pending.remove(&chunk.cookie).into_iter().for_each(Pending::finish);
        }
    }
    assert!(pending.is_empty(), "{} requests got no whole reply", pending.len());
    let mut content = vec![0; SIZE];
    export.volume().read(0, &mut content).expect("memory can be read");
    assert!(model.fits(&content), "the volume differs in the end");
});

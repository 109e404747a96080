//! What both ends of a link share: sending a message in frames, and remembering deliveries until the peer has disposed of them.

use std::collections::VecDeque;

use super::performative::Transfer;

/// Bytes of a transfer frame that are not payload, at most: frame header, descriptor, sizes, and the fields we write.
const TRANSFER_OVERHEAD_MAX: usize = 64;

/// The sender's view of the peer's session, from its `begin` and `flow`s (specification 2.5.6).
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct OutgoingSession {
    pub channel: u16,
    /// Transfer frames sent.
    pub next_outgoing_id: u32,
    /// Transfer frames the peer still takes.
    pub window: u32,
}

impl OutgoingSession {
    /// Takes over what the peer says of its window.
    pub(crate) fn on_flow(&mut self, next_incoming_id: Option<u32>, incoming_window: u32) {
        // Before the peer has seen our begin it counts from our first id, which is 0.
        let limit = next_incoming_id.unwrap_or(0).wrapping_add(incoming_window);
        let window = limit.wrapping_sub(self.next_outgoing_id);
        // A window that lies behind us is no window.
        self.window = if window > u32::MAX / 2 { 0 } else { window };
    }
}

/// A message on its way, of which `offset` bytes are sent.
#[derive(Debug)]
pub(crate) struct Sending {
    pub delivery_id: u32,
    pub message: Vec<u8>,
    pub offset: usize,
}

impl Sending {
    /// Appends frames to `out` while the session's window lasts and `out` stays below `out_max` bytes. `true` when all is sent.
    pub(crate) fn pump(
        &mut self,
        session: &mut OutgoingSession,
        handle: u32,
        frame_max: usize,
        out: &mut Vec<u8>,
        out_max: usize,
    ) -> bool {
        let payload_max = frame_max - TRANSFER_OVERHEAD_MAX;
        while session.window > 0 && out.len() < out_max {
            let rest = &self.message[self.offset..];
            let payload = &rest[..rest.len().min(payload_max)];
            let first = self.offset == 0;
            let tag = self.delivery_id.to_be_bytes();
            let transfer = Transfer {
                handle,
                delivery_id: first.then_some(self.delivery_id),
                delivery_tag: first.then_some(&tag),
                more: payload.len() < rest.len(),
                ..Transfer::default()
            };
            transfer.write(out, session.channel, payload);
            session.window -= 1;
            session.next_outgoing_id = session.next_outgoing_id.wrapping_add(1);
            self.offset += payload.len();
            if !transfer.more {
                return true;
            }
        }
        false
    }
}

/// Deliveries that the peer has not disposed of, by consecutive ids. A peer may dispose of any range of ids; the work that
/// takes is bounded by what is in here, never by the range.
#[derive(Debug)]
pub(crate) struct Unsettled<T> {
    first: u32,
    entries: VecDeque<Option<T>>,
}

impl<T> Default for Unsettled<T> {
    fn default() -> Self {
        Self { first: 0, entries: VecDeque::new() }
    }
}

impl<T> Unsettled<T> {
    /// Remembers a delivery under the next id.
    pub(crate) fn push(&mut self, entry: T) -> u32 {
        let id = self.first.wrapping_add(self.entries.len() as u32);
        self.entries.push_back(Some(entry));
        id
    }

    /// How many ids lie between the oldest remembered delivery and the newest: one never disposed of keeps this growing.
    pub(crate) fn span(&self) -> usize {
        self.entries.len()
    }

    /// Forgets the deliveries from `first` to `last`, both included, and gives them to `take`.
    pub(crate) fn settle(&mut self, first: u32, last: u32, mut take: impl FnMut(T)) {
        // Serial number arithmetic (RFC 1982): ids wrap around after 2^32 deliveries.
        let start = first.wrapping_sub(self.first);
        let end = last.wrapping_sub(self.first);
        let (start, end) = if start > u32::MAX / 2 { (0, end) } else { (start as usize, end) };
        if end > u32::MAX / 2 {
            return;
        }
        for entry in self.entries.iter_mut().take(end as usize + 1).skip(start) {
            if let Some(entry) = entry.take() {
                take(entry);
            }
        }
        self.trim();
    }

    /// Forgets all deliveries for which `pick` holds and gives them to `take`.
    pub(crate) fn settle_where(&mut self, pick: impl Fn(&T) -> bool, mut take: impl FnMut(T)) {
        for entry in &mut self.entries {
            if entry.as_ref().is_some_and(&pick)
                && let Some(entry) = entry.take()
            {
                take(entry);
            }
        }
        self.trim();
    }

    fn trim(&mut self) {
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{self, FrameType};
    use super::super::performative::Performative;
    use super::*;

    fn settled(unsettled: &mut Unsettled<char>, first: u32, last: u32) -> String {
        let mut taken = String::new();
        unsettled.settle(first, last, |entry| taken.push(entry));
        taken
    }

    #[test]
    fn any_range_settles_what_lies_in_it_once() {
        let mut unsettled = Unsettled::default();
        let ids: Vec<u32> = "abcde".chars().map(|entry| unsettled.push(entry)).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4]);
        assert_eq!(settled(&mut unsettled, 1, 2), "bc");
        assert_eq!(settled(&mut unsettled, 2, 1), "");
        assert_eq!(unsettled.span(), 5);
        assert_eq!(settled(&mut unsettled, 0, 0), "a");
        assert_eq!(unsettled.span(), 2);
        assert_eq!(settled(&mut unsettled, 0, u32::MAX / 2), "de");
        assert_eq!((unsettled.span(), unsettled.push('f')), (0, 5));
    }

    #[test]
    fn ids_wrap_around() {
        let mut unsettled = Unsettled { first: u32::MAX - 1, ..Unsettled::default() };
        assert_eq!("abcd".chars().map(|entry| unsettled.push(entry)).last(), Some(1));
        assert_eq!(settled(&mut unsettled, u32::MAX, 0), "bc");
        assert_eq!(settled(&mut unsettled, u32::MAX - 5, 1), "ad");
    }

    #[test]
    fn a_message_is_cut_to_the_frames_and_the_window_of_the_peer() {
        let message: Vec<u8> = (0..2_000u32).map(|n| n as u8).collect();
        let mut sending = Sending { delivery_id: 3, message: message.clone(), offset: 0 };
        let mut session = OutgoingSession { channel: 1, next_outgoing_id: 0, window: 2 };
        let mut out = Vec::new();
        assert!(!sending.pump(&mut session, 9, 512, &mut out, usize::MAX), "the window is too small");
        session.on_flow(Some(2), 100);
        assert!(sending.pump(&mut session, 9, 512, &mut out, usize::MAX));
        let (mut rest, mut received, mut count) = (&out[..], Vec::new(), 0);
        while let Ok(Some(size)) = frame::size(rest, 512) {
            let body = frame::parse(&rest[..size], FrameType::Amqp).expect("a frame").body;
            let (Performative::Transfer(transfer), payload) = Performative::decode(body).expect("a transfer") else {
                panic!("no transfer")
            };
            assert_eq!(transfer.delivery_id, (count == 0).then_some(3));
            received.extend_from_slice(payload);
            assert_eq!(transfer.more, received.len() < message.len());
            count += 1;
            rest = &rest[size..];
        }
        assert!(received == message && session.next_outgoing_id == count && session.window == 102 - count);
    }

    #[test]
    fn a_window_that_lies_behind_is_closed() {
        let mut session = OutgoingSession { channel: 0, next_outgoing_id: 10, window: 0 };
        session.on_flow(Some(5), 3);
        assert_eq!(session.window, 0);
        session.on_flow(Some(5), 8);
        assert_eq!(session.window, 3);
        session.on_flow(None, u32::MAX / 2);
        assert_eq!(session.window, u32::MAX / 2 - 10);
    }
}

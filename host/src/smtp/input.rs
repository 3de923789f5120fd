//! Octets that have arrived and wait to be understood.

/// What a peer sent and nobody has consumed yet. Grows only when asked for space; its driver bounds it by reading only when the
/// machine wants more, and the machines leave at most one command or reply line unconsumed.
#[derive(Debug, Default)]
pub struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    /// Empty, without an allocation.
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), start: 0, end: 0 }
    }

    /// Room for at least `least` octets behind those that are here; tell [`filled`](Self::filled) how many came.
    pub fn space(&mut self, least: usize) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        if self.buffer.len() - self.end < least {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.buffer.len() - self.end < least {
                self.buffer.resize(self.end + least, 0);
            }
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// `n` octets of the space now hold what the peer sent.
    pub fn filled(&mut self, n: usize) {
        self.end = (self.end + n).min(self.buffer.len());
    }

    /// Takes octets that are already in memory.
    pub fn push(&mut self, octets: &[u8]) {
        let space = self.space(octets.len());
        if let Some(space) = space.get_mut(..octets.len()) {
            space.copy_from_slice(octets);
        }
        self.filled(octets.len());
    }

    /// What is here.
    pub fn data(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Whether nothing is here.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `n` octets have been understood.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Forgets what is here. RFC 3207 §4.2: nothing that came in the clear may be taken for something that came under TLS.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Gives the memory back if nothing is here, so that an idle session holds none.
    pub fn release(&mut self) {
        if self.is_empty() {
            *self = Self::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_order() {
        let mut input = Input::new();
        let mut seen = Vec::new();
        for n in 0..200u8 {
            input.push(&[n; 7]);
            let take = input.data().get(..5).expect("seven are there").to_vec();
            input.consume(take.len());
            seen.extend(take);
        }
        seen.extend_from_slice(input.data());
        let expected: Vec<u8> = (0..200u8).flat_map(|n| [n; 7]).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn bounds() {
        let mut input = Input::new();
        input.filled(5);
        assert!(input.is_empty());
        input.push(b"abc");
        input.consume(9);
        assert!(input.is_empty());
        assert_eq!(input.space(10).len(), 10);
        input.release();
        assert_eq!(input.buffer.capacity(), 0);
    }
}

//! What something was, step by step, and since when that is promised.

use super::ground::Cut;

/// Values of one thing, oldest first.
#[derive(Debug, Clone)]
pub(super) struct Past<T> {
    values: Vec<Value<T>>,
}

#[derive(Debug, Clone)]
struct Value<T> {
    step: usize,
    value: T,
    /// The step that promised that this, or what came later, outlives a loss of power.
    promised: Option<usize>,
}

impl<T: Clone> Past<T> {
    /// As it was before the first step.
    pub(super) fn new(value: T) -> Self {
        Self { values: vec![Value { step: 0, value, promised: Some(0) }] }
    }

    pub(super) fn now(&self) -> T {
        self.values[self.values.len() - 1].value.clone()
    }

    /// A step changes it, and promises nothing.
    pub(super) fn change(&mut self, step: usize, value: T) {
        self.values.push(Value { step, value, promised: None });
    }

    /// A step promises what it is now.
    pub(super) fn promise(&mut self, step: usize) {
        if let Some(last) = self.values.last_mut() {
            last.promised = last.promised.or(Some(step));
        }
    }

    /// A step changes it for good.
    pub(super) fn set(&mut self, step: usize, value: T) {
        self.change(step, value);
        self.promise(step);
    }

    /// What it may be after this loss of power: what was promised last, and all that was begun since.
    pub(super) fn after(&self, cut: Cut) -> Vec<&T> {
        let begun = self.values.iter().take_while(|value| value.step <= cut.begun);
        let mut list: Vec<&T> = Vec::new();
        for value in begun {
            if value.promised.is_some_and(|step| step <= cut.done) {
                list.clear();
            }
            list.push(&value.value);
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::{Cut, Past};
    use ::tests::cut::Loss;

    #[test]
    fn a_promise_ends_what_was_before() {
        let mut past = Past::new('a');
        past.change(1, 'b');
        past.change(2, 'c');
        past.promise(3);
        past.set(4, 'd');
        let after = |begun, done| {
            let cut = Cut { number: 0, position: 0, loss: Loss::Nothing, begun, done };
            past.after(cut).into_iter().collect::<String>()
        };
        assert_eq!(after(0, 0), "a");
        assert_eq!(after(1, 0), "ab");
        assert_eq!(after(3, 2), "abc");
        assert_eq!(after(3, 3), "c");
        assert_eq!(after(4, 3), "cd");
        assert_eq!(after(4, 4), "d");
    }
}

//! Parameter names while a network is visited.

/// The path to the module that is being visited.
#[derive(Debug, Default)]
pub(crate) struct Path(Vec<String>);

impl Path {
    pub(crate) fn enter(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    pub(crate) fn exit(&mut self) {
        self.0.pop();
    }

    /// Returns the name of the parameter that is being visited.
    pub(crate) fn name(&self) -> String {
        self.0.join(".")
    }
}

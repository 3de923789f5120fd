//! The interface as a page of Markdown: every interface in the order of the file, what it is to a component, its types and functions.

use std::fmt::{self, Write as _};

use wit_bindgen_core::wit_parser::{
    Docs, Function, Handle, Interface, InterfaceId, PackageId, Resolve, Stability, Type, TypeDef, TypeDefKind, TypeId,
    WorldItem,
};

use crate::Result;

const HEAD: &str = "\
<!-- Generated from wit/policy.wit by `cargo xtask interface`. Do not edit. -->

# The plugin interface

";

/// The whole page.
pub fn render(resolve: &Resolve, package: PackageId) -> Result<String> {
    let package = resolve.packages.get(package).ok_or("no such package")?;
    let mut page = Page { resolve, text: String::from(HEAD) };
    let _ = writeln!(page.text, "Package `{}`, as text: [`wit/policy.wit`](../wit/policy.wit).\n", package.name);
    page.docs(&package.docs)?;
    page.text.push_str("| interface | to a policy | |\n|---|---|---|\n");
    for (name, id) in &package.interfaces {
        let interface = &resolve.interfaces[*id];
        let (role, docs) = (page.role(*id), summary(&interface.docs));
        writeln!(page.text, "| [`{name}`](#{name}) | {role} | {docs} |")?;
    }
    for (name, id) in &package.interfaces {
        page.interface(name, &resolve.interfaces[*id])?;
    }
    let text = page.text.trim_end();
    Ok(format!("{text}\n"))
}

/// The first sentence, on one line, without the word that names the role.
fn summary(docs: &Docs) -> String {
    let text = docs.contents.as_deref().unwrap_or_default().replace('\n', " ");
    let text = text.split_once(". ").map_or(text.as_str(), |(first, _)| first).trim_end_matches('.');
    let text = text.strip_prefix("Hook: ").or_else(|| text.strip_prefix("Import: ")).unwrap_or(text);
    text.replace('|', "\\|")
}

struct Page<'a> {
    resolve: &'a Resolve,
    text: String,
}

impl Page<'_> {
    /// Whether a component imports it, exports it, or only speaks in its types.
    fn role(&self, id: InterfaceId) -> &'static str {
        let is_it = |item: &WorldItem| matches!(item, WorldItem::Interface { id: own, .. } if *own == id);
        let mut role = "types";
        for (_, world) in &self.resolve.worlds {
            if world.exports.values().any(is_it) {
                return "export";
            }
            let called = !self.resolve.interfaces[id].functions.values().all(of_a_resource);
            if called && world.imports.values().any(is_it) {
                role = "import";
            }
        }
        role
    }

    fn interface(&mut self, name: &str, interface: &Interface) -> fmt::Result {
        writeln!(self.text, "\n## `{name}`\n")?;
        self.docs(&interface.docs)?;
        self.since(&interface.stability)?;
        for (name, id) in &interface.types {
            self.type_def(name, *id, interface)?;
        }
        for function in interface.functions.values().filter(|function| !of_a_resource(function)) {
            writeln!(self.text, "### `{}`\n\n```wit\n{}\n```\n", function.name, self.signature(function))?;
            self.docs(&function.docs)?;
        }
        Ok(())
    }

    fn type_def(&mut self, name: &str, id: TypeId, interface: &Interface) -> fmt::Result {
        let def = &self.resolve.types[id];
        if let TypeDefKind::Type(_) = def.kind {
            return Ok(()); // a name that another interface lends
        }
        writeln!(self.text, "### {} `{name}`\n", def.kind.as_str())?;
        self.docs(&def.docs)?;
        match &def.kind {
            TypeDefKind::Record(record) => {
                for field in &record.fields {
                    let kind = self.type_name(&field.ty);
                    self.item(&format!("{}: {kind}", field.name), &field.docs)?;
                }
            }
            TypeDefKind::Variant(variant) => {
                for case in &variant.cases {
                    let payload = case.ty.map(|ty| format!("({})", self.type_name(&ty))).unwrap_or_default();
                    self.item(&format!("{}{payload}", case.name), &case.docs)?;
                }
            }
            TypeDefKind::Enum(own) => {
                for case in &own.cases {
                    self.item(&case.name, &case.docs)?;
                }
            }
            TypeDefKind::Resource => {
                for function in interface.functions.values().filter(|function| function.kind.resource() == Some(id)) {
                    self.item(&self.signature(function), &function.docs)?;
                }
            }
            _ => {}
        }
        self.text.push('\n');
        Ok(())
    }

    fn item(&mut self, code: &str, docs: &Docs) -> fmt::Result {
        let docs = docs.contents.as_deref().unwrap_or_default().trim().replace('\n', " ");
        let between = if docs.is_empty() { "" } else { ": " };
        writeln!(self.text, "- `{code}`{between}{docs}")
    }

    fn docs(&mut self, docs: &Docs) -> fmt::Result {
        match &docs.contents {
            Some(contents) => writeln!(self.text, "{}\n", contents.trim()),
            None => Ok(()),
        }
    }

    fn since(&mut self, stability: &Stability) -> fmt::Result {
        match stability {
            Stability::Stable { since, .. } => writeln!(self.text, "Since {since}.\n"),
            _ => Ok(()),
        }
    }

    fn signature(&self, function: &Function) -> String {
        let own = usize::from(function.kind.resource().is_some()); // `self` goes without saying
        let parameters = function.params.iter().skip(own);
        let parameters: Vec<String> =
            parameters.map(|parameter| format!("{}: {}", parameter.name, self.type_name(&parameter.ty))).collect();
        let result = function.result.map(|result| format!(" -> {}", self.type_name(&result))).unwrap_or_default();
        format!("{}: func({}){result}", function.item_name(), parameters.join(", "))
    }

    fn type_name(&self, ty: &Type) -> String {
        match ty {
            Type::Id(id) => self.type_def_name(&self.resolve.types[*id]),
            Type::Bool => "bool".into(),
            Type::Char => "char".into(),
            Type::String => "string".into(),
            Type::ErrorContext => "error-context".into(),
            number => format!("{number:?}").to_lowercase(),
        }
    }

    fn type_def_name(&self, def: &TypeDef) -> String {
        let of_def = |id: &TypeId| self.type_def_name(&self.resolve.types[*id]);
        if let Some(name) = &def.name {
            return name.clone();
        }
        match &def.kind {
            TypeDefKind::Handle(Handle::Borrow(id)) => format!("borrow<{}>", of_def(id)),
            TypeDefKind::Handle(Handle::Own(id)) => of_def(id),
            TypeDefKind::Option(ty) => format!("option<{}>", self.type_name(ty)),
            TypeDefKind::List(ty) => format!("list<{}>", self.type_name(ty)),
            TypeDefKind::Tuple(tuple) => {
                let types: Vec<String> = tuple.types.iter().map(|ty| self.type_name(ty)).collect();
                format!("tuple<{}>", types.join(", "))
            }
            TypeDefKind::Result(result) => {
                let of = |ty: Option<Type>| ty.map_or("_".into(), |ty| self.type_name(&ty));
                format!("result<{}, {}>", of(result.ok), of(result.err))
            }
            kind => kind.as_str().into(),
        }
    }
}

fn of_a_resource(function: &Function) -> bool {
    function.kind.resource().is_some()
}

//! The varied wording: the wording of a sentence depends on its content.

use super::{Telling, full_name, likeness, likeness_of_ground, short_name};
use crate::scenes::scene::{Background, Colour, PlacedShape, Scene, ShapeKind, ShapeSize};

/// Returns the opening of a description, which depends on the background.
fn opening(telling: Telling, ground: Background, count: &str) -> String {
    let feeling = likeness_of_ground(ground);
    match (telling, ground) {
        (Telling::Sentence, Background::White | Background::Beige) => {
            format!("On a {ground} background the picture shows {count}:")
        }
        (Telling::Sentence, Background::Grey) => format!("{count} on {ground}, like {feeling}:"),
        (Telling::Sentence, _) => format!("The background is {ground} and there is"),
        (Telling::List, Background::White | Background::Beige) => {
            format!("There is {count} here, and all the space around is {ground}.")
        }
        (Telling::List, Background::Grey) => {
            format!("I see {feeling}, because the background is {ground}.")
        }
        (Telling::List, Background::Black) => {
            format!("It is {ground} like {feeling} and shows {count}.")
        }
        (Telling::List, Background::Pink) => {
            format!("A friendly {ground} is all around, and in it is {count}.")
        }
        (Telling::Walk, Background::White | Background::Beige) => {
            format!("This is a simple picture of {count}, as {ground} and clear as {feeling}.")
        }
        (Telling::Walk, Background::Grey) => {
            format!("In front of a {ground} background, which feels like {feeling}, is {count}.")
        }
        (Telling::Walk, Background::Black) => {
            format!("The scene is {ground}; a traveller would look at {feeling} and see {count}.")
        }
        (Telling::Walk, Background::Pink) => {
            format!("Here is {count} with so {ground} a ground that people would see {feeling}.")
        }
        (Telling::Titled, Background::White | Background::Beige) => {
            format!("First, look at the {ground} background: it is {feeling}. Then see {count}.")
        }
        (Telling::Titled, Background::Grey) => {
            format!("Very still and {ground} is this scene with {count}, like {feeling}.")
        }
        (Telling::Titled, Background::Black) => {
            format!("Because the ground is {ground}, {count} has been drawn at night.")
        }
        (Telling::Titled, Background::Pink) => {
            format!("If {feeling} had a picture, it would be as {ground} as this one of {count}.")
        }
    }
}

/// Returns the text about a shape.
fn clause(telling: Telling, shape: &PlacedShape, place: &str) -> String {
    let PlacedShape {
        kind, colour, size, ..
    } = shape;
    let mood = mood(*colour);
    let likeness = likeness(*kind);
    match (telling, kind) {
        (Telling::Sentence, ShapeKind::Circle | ShapeKind::Ring) => {
            format!(" a {size} {colour} {kind} {}", beside(*size, place))
        }
        (Telling::Sentence, ShapeKind::Square | ShapeKind::Diamond) => {
            format!(" in the {place} one {kind}, {size} and {colour}")
        }
        (Telling::Sentence, _) => format!(" a {kind} in {colour}, {size}, {mood}"),
        (Telling::List, ShapeKind::Circle | ShapeKind::Ring) => {
            format!(" The {place} has a {colour} {kind}, and it is {size}.")
        }
        (Telling::List, ShapeKind::Square | ShapeKind::Diamond) => {
            format!(" There is a {} {}.", full_name(shape), beside(*size, place))
        }
        (Telling::List, ShapeKind::Triangle) => {
            format!(" I see a {size} {kind}: its colour is {colour}, its place the {place}.")
        }
        (Telling::List, ShapeKind::Cross) => {
            format!(" One {colour} {kind} is {size} and sits in the {place}.")
        }
        (Telling::Walk, ShapeKind::Circle | ShapeKind::Ring) => format!(
            " In the {place} a {colour} {kind} has been drawn, {size} and round like {likeness}, \
             and it seems {mood}."
        ),
        (Telling::Walk, ShapeKind::Square | ShapeKind::Diamond) => format!(
            " Look {}, where a {size} {kind} sits; it is {colour}, so it feels {mood}.",
            beside(*size, place)
        ),
        (Telling::Walk, ShapeKind::Triangle) => format!(
            " Like {likeness}, but {mood}, a {colour} {kind} of {size} form is in the {place}."
        ),
        (Telling::Walk, ShapeKind::Cross) => format!(
            " The {place} reminds people of {likeness}, because its {kind} is {size} and {colour}."
        ),
        (Telling::Titled, ShapeKind::Circle | ShapeKind::Ring) => format!(
            " As round as {likeness}, the {kind} in the {place} is {colour}: {size} and {mood}."
        ),
        (Telling::Titled, ShapeKind::Square | ShapeKind::Diamond) => format!(
            " A {colour} {kind} feels {mood} and looks like {likeness}, {size} as it is {}.",
            beside(*size, place)
        ),
        (Telling::Titled, ShapeKind::Triangle) => {
            format!(" Then see how {mood} the {size} {kind} in the {place} is, all {colour}.")
        }
        (Telling::Titled, ShapeKind::Cross) => format!(
            " At the {place} there is {likeness} for the traveller, a {kind} in {colour}, {size}."
        ),
    }
}

/// Returns the ending of a description.
fn ending(telling: Telling, scene: &Scene) -> String {
    let ground = scene.background();
    let feeling = likeness_of_ground(ground);
    let Some(last) = scene.shapes().last() else {
        return String::new();
    };
    let name = short_name(last);
    match (telling, last.size) {
        (Telling::Sentence, _) => ".".to_owned(),
        (Telling::List, ShapeSize::Small) => format!(" So small is the {name}!"),
        (Telling::List, ShapeSize::Large) => " That is all.".to_owned(),
        (Telling::Walk, ShapeSize::Small) => {
            format!(" In short, the {name} and {feeling} make a friendly composition.")
        }
        (Telling::Walk, ShapeSize::Large) => {
            format!(" It is easy to see why the {ground} space around looks so clear.")
        }
        (Telling::Titled, ShapeSize::Small) => {
            format!(" If I had to give it a title, I would call it the {name} in {feeling}.")
        }
        (Telling::Titled, ShapeSize::Large) => {
            format!(" Its title would be: {feeling} and {}.", full_name(last))
        }
    }
}

fn beside(size: ShapeSize, place: &str) -> String {
    match size {
        ShapeSize::Small => format!("at the {place}"),
        ShapeSize::Large => format!("all over the {place}"),
    }
}

fn mood(colour: Colour) -> &'static str {
    match colour {
        Colour::Red | Colour::Orange => "warm and loud",
        Colour::Yellow => "bright and friendly",
        Colour::Green => "fresh and easy",
        Colour::Blue => "cool and quiet",
        Colour::Purple => "strange and royal",
        Colour::Brown | Colour::Black => "cool and still",
    }
}

/// Returns the description that answers a request; `place` names the place of a shape.
pub(super) fn told(
    scene: &Scene,
    telling: Telling,
    place: impl Fn(&PlacedShape) -> String,
) -> String {
    let count = match scene.shapes().len() {
        1 => "one shape".to_owned(),
        2 => "a pair of shapes".to_owned(),
        n => format!("a group of {n}"),
    };
    let clauses: Vec<String> = scene
        .shapes()
        .iter()
        .map(|shape| clause(telling, shape, &place(shape)))
        .collect();
    let between = match telling {
        Telling::Sentence => ",",
        Telling::List | Telling::Walk | Telling::Titled => "",
    };
    format!(
        "{}{}{}",
        opening(telling, scene.background(), &count),
        clauses.join(between),
        ending(telling, scene)
    )
}

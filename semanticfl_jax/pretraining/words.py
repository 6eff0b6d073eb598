"""Names for the text tower: WordNet's to learn from, class names of the data sets held out."""

from pathlib import Path

from semanticfl_jax.config import ConfigError

#: Class names that the text tower never sees; their similarities measure how it generalises.
CIFAR10 = "airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck"
CIFAR100 = """apple, aquarium fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl,
boy, bridge, bus, butterfly, camel, can, castle, caterpillar, cattle, chair,
chimpanzee, clock, cloud, cockroach, couch, crab, crocodile, cup, dinosaur, dolphin,
elephant, flatfish, forest, fox, girl, hamster, house, kangaroo, keyboard, lamp, lawn
mower, leopard, lion, lizard, lobster, man, maple tree, motorcycle, mountain, mouse,
mushroom, oak tree, orange, orchid, otter, palm tree, pear, pickup truck, pine tree,
plain, plate, poppy, porcupine, possum, rabbit, raccoon, ray, road, rocket, rose,
sea, seal, shark, shrew, skunk, skyscraper, snail, snake, spider, squirrel,
streetcar, sunflower, sweet pepper, table, tank, telephone, television, tiger,
tractor, train, trout, tulip, turtle, wardrobe, whale, willow tree, wolf, woman, worm"""


def split(names: str) -> list[str]:
    """Return the names in a text like those above."""
    return [name.strip() for name in names.replace("\n", " ").split(",")]


def read(path: Path) -> dict[str, list[str]]:
    """Read {WordNet id: names, first synonym first} from lines `id<TAB>name, name, ...`.

    Raises:
      ConfigError: if the file is missing or has another form.
    """
    if not path.is_file():
        raise ConfigError(f"words: no such file: {path}")
    names = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        wnid, tab, synonyms = line.partition("\t")
        if not tab:
            raise ConfigError(f"words: line {number} of {path} is not 'id<TAB>name, name, ...'")
        names[wnid] = [name.strip() for name in synonyms.split(",") if name.strip()]
    return names


def training_names(names: dict[str, list[str]], held_out: list[str]) -> list[str]:
    """Return all different names, lower case and sorted, without those held out as a whole name."""
    known = {name.lower() for synonyms in names.values() for name in synonyms}
    return sorted(known - {name.lower() for name in held_out})

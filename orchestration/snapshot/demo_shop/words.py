"""The demo shop's vocabulary: departments, brands, lines and adjectives, all made up for this project."""

from __future__ import annotations

# department -> "Group > Leaf: what such an item is called in a title", in the order of the shop's menu.
DEPARTMENTS: dict[str, tuple[str, ...]] = {
    "Kitchen": (
        "Knives > Santoku Knives: Santoku Knife",
        "Knives > Bread Knives: Bread Knife",
        "Sharpening > Whetstones: Whetstone",
        "Cookware > Frying Pans: Frying Pan",
        "Cookware > Saucepans: Saucepan",
        "Cookware > Lids: Pan Lid",
        "Preparation > Cutting Boards: Cutting Board",
        "Preparation > Mixing Bowls: Mixing Bowl",
        "Preparation > Peelers: Swivel Peeler",
        "Storage > Food Containers: Food Container",
    ),
    "Coffee & Tea": (
        "Coffee > Hand Grinders: Hand Coffee Grinder",
        "Coffee > Drippers: Pour-Over Dripper",
        "Coffee > Paper Filters: Paper Filters",
        "Coffee > Gooseneck Kettles: Gooseneck Kettle",
        "Coffee > Scales: Brewing Scale",
        "Espresso > Tampers: Tamper",
        "Espresso > Milk Jugs: Milk Jug",
        "Tea > Teapots: Teapot",
        "Tea > Strainers: Tea Strainer",
        "Tableware > Cups: Double-Wall Cup",
    ),
    "Baking": (
        "Tins > Loaf Tins: Loaf Tin",
        "Tins > Springform Tins: Springform Tin",
        "Tins > Muffin Trays: Muffin Tray",
        "Dough > Proofing Baskets: Proofing Basket",
        "Dough > Scrapers: Dough Scraper",
        "Dough > Rolling Pins: Rolling Pin",
        "Decoration > Piping Sets: Piping Nozzle Set",
        "Decoration > Cookie Cutters: Cookie Cutters",
        "Tools > Whisks: Balloon Whisk",
        "Tools > Cooling Racks: Cooling Rack",
    ),
    "Garden": (
        "Sowing > Seed Trays: Seed Tray",
        "Sowing > Dibbers: Dibber",
        "Sowing > Plant Labels: Plant Labels",
        "Tools > Hand Trowels: Hand Trowel",
        "Tools > Secateurs: Secateurs",
        "Tools > Rakes: Leaf Rake",
        "Watering > Watering Cans: Watering Can",
        "Watering > Hose Reels: Hose Reel",
        "Pots > Planters: Planter",
        "Wildlife > Bird Feeders: Bird Feeder",
    ),
    "Workshop": (
        "Measuring > Tape Measures: Tape Measure",
        "Measuring > Squares: Carpenter's Square",
        "Cutting > Handsaws: Handsaw",
        "Cutting > Chisels: Bevel Chisel",
        "Clamping > Bar Clamps: Bar Clamp",
        "Clamping > Vices: Bench Vice",
        "Fastening > Screwdrivers: Screwdriver Set",
        "Fastening > Hammers: Claw Hammer",
        "Finishing > Sanding Blocks: Sanding Block",
        "Finishing > Wood Oils: Wood Oil",
    ),
    "Cycling": (
        "Luggage > Panniers: Pannier Bag",
        "Luggage > Handlebar Bags: Handlebar Bag",
        "Lights > Front Lights: Front Light",
        "Lights > Rear Lights: Rear Light",
        "Repair > Multi-Tools: Bicycle Multi-Tool",
        "Repair > Tyre Levers: Tyre Levers",
        "Repair > Mini Pumps: Mini Pump",
        "Clothing > Gloves: Cycling Gloves",
        "Clothing > Rain Capes: Rain Cape",
        "Comfort > Saddles: Saddle",
    ),
    "Camping": (
        "Shelter > Tents: Two-Person Tent",
        "Shelter > Tarps: Tarp",
        "Shelter > Tent Pegs: Tent Pegs",
        "Sleeping > Sleeping Bags: Sleeping Bag",
        "Sleeping > Sleeping Mats: Sleeping Mat",
        "Sleeping > Pillows: Travel Pillow",
        "Cooking > Gas Stoves: Gas Stove",
        "Cooking > Mess Tins: Mess Tin",
        "Light > Lanterns: Lantern",
        "Light > Head Torches: Head Torch",
    ),
    "Bathroom": (
        "Towels > Bath Towels: Bath Towel",
        "Towels > Hand Towels: Hand Towel",
        "Fittings > Towel Rails: Towel Rail",
        "Fittings > Soap Dispensers: Soap Dispenser",
        "Fittings > Hook Rails: Hook Rail",
        "Fittings > Shower Caddies: Shower Caddy",
        "Textiles > Bath Mats: Bath Mat",
        "Textiles > Shower Curtains: Shower Curtain",
        "Care > Bath Brushes: Bath Brush",
        "Storage > Laundry Baskets: Laundry Basket",
    ),
    "Bedroom": (
        "Bedding > Duvet Covers: Duvet Cover",
        "Bedding > Pillowcases: Pillowcase",
        "Bedding > Fitted Sheets: Fitted Sheet",
        "Bedding > Blankets: Throw Blanket",
        "Light > Bedside Lamps: Bedside Lamp",
        "Light > Night Lights: Night Light",
        "Storage > Clothes Hangers: Clothes Hangers",
        "Storage > Underbed Boxes: Underbed Box",
        "Decoration > Cushions: Cushion",
        "Decoration > Wall Clocks: Wall Clock",
    ),
    "Desk & Office": (
        "Writing > Fountain Pens: Fountain Pen",
        "Writing > Pencils: Pencil Set",
        "Writing > Inks: Bottled Ink",
        "Paper > Notebooks: Notebook",
        "Paper > Index Cards: Index Cards",
        "Order > Desk Trays: Desk Tray",
        "Order > Pen Cups: Pen Cup",
        "Order > Cable Boxes: Cable Box",
        "Work Place > Desk Lamps: Desk Lamp",
        "Work Place > Desk Mats: Desk Mat",
    ),
    "Pets": (
        "Dogs > Leads: Dog Lead",
        "Dogs > Harnesses: Dog Harness",
        "Dogs > Dog Beds: Dog Bed",
        "Dogs > Chew Toys: Chew Toy",
        "Cats > Scratching Posts: Scratching Post",
        "Cats > Litter Trays: Litter Tray",
        "Cats > Cat Toys: Feather Wand",
        "Feeding > Bowls: Feeding Bowl",
        "Feeding > Treat Jars: Treat Jar",
        "Care > Brushes: Grooming Brush",
    ),
    "Art & Craft": (
        "Painting > Brushes: Watercolour Brush",
        "Painting > Paint Sets: Watercolour Set",
        "Painting > Easels: Table Easel",
        "Painting > Sketch Pads: Sketch Pad",
        "Knitting > Needles: Knitting Needles",
        "Yarn > Yarns: Merino Yarn",
        "Knitting > Stitch Markers: Stitch Markers",
        "Sewing > Scissors: Fabric Scissors",
        "Sewing > Thread Sets: Thread Set",
        "Sewing > Pin Cushions: Pin Cushion",
    ),
}

# Leaf categories of which people buy the same item again: it is used up, or they want another one.
RESTOCKED: frozenset[str] = frozenset(
    (
        "Food Containers", "Paper Filters", "Cups", "Piping Sets", "Cookie Cutters", "Plant Labels", "Seed Trays", "Planters", "Sanding Blocks",
        "Wood Oils", "Gloves", "Tyre Levers", "Tent Pegs", "Mess Tins", "Bath Towels", "Hand Towels", "Pillowcases", "Clothes Hangers", "Pencils",
        "Inks", "Notebooks", "Index Cards", "Chew Toys", "Cat Toys", "Sketch Pads", "Paint Sets", "Yarns", "Thread Sets",
    )
)  # fmt: skip
# The month (0: January) in which a department's season is highest.
PEAK_MONTHS: dict[str, int] = {
    "Kitchen": 11, "Coffee & Tea": 0, "Baking": 11, "Garden": 3, "Workshop": 4, "Cycling": 5, "Camping": 6, "Bathroom": 1, "Bedroom": 10,
    "Desk & Office": 8, "Pets": 7, "Art & Craft": 10,
}  # fmt: skip

# Six brands a department; every brand serves two neighbouring departments of the menu.
BRANDS: tuple[str, ...] = (
    "Halvenmoor", "Brindlewick", "Tarnhollow", "Ostrellan", "Quillmere", "Fenbarrow",
    "Dunmarrow", "Larkspindle", "Eskenfold", "Wrenholt", "Pellgarth", "Sorrelby",
    "Ambergate & Daughters", "Kestrow", "Mossendale", "Vintrick", "Cobblehithe", "Yarrowstead",
    "Grundelund", "Thistlecombe", "Nordhavel", "Pimpertree", "Oakenshade Works", "Lumberick",
    "Saltmarrow", "Birkenfell", "Tolliver Finch", "Hazelmount", "Rookery Lane", "Iverstone",
    "Maplethorn", "Cinderby", "Wolfram Gale", "Puddlebrook", "Estermoor", "Jorvendal",
)  # fmt: skip

# One line of products a brand and price level, in this order within the brand.
LINES: tuple[str, ...] = (
    "Fjord", "Ember", "Willow", "Harbour", "Cinnabar", "Meridian", "Juniper", "Slate",
    "Lantern", "Heron", "Bramble", "Orchard", "Cobalt", "Drift", "Maple", "Tundra",
    "Saffron", "Anchor", "Prairie", "Velvet", "Quarry", "Thicket", "Beacon", "Almond",
)  # fmt: skip

# Four price levels, cheapest first; three synonyms each, so that the level is hinted at rather than stated.
PRICE_WORDS: tuple[tuple[str, ...], ...] = (
    ("Basic", "Everyday", "Starter"),
    ("Classic", "Comfort", "Family"),
    ("Select", "Plus", "Studio"),
    ("Master", "Reserve", "Signature"),
)
# What the products of a group are made of; none where a title would not say.
METAL, WOOD = ("Stainless Steel", "Aluminium", "Brass", "Powder-Coated Steel"), ("Beech", "Oak", "Bamboo", "Walnut")
CLOTH, POTTERY = ("Cotton", "Linen", "Canvas", "Wool Blend"), ("Stoneware", "Enamel", "Porcelain", "Terracotta")
PADDED = ("Ripstop", "Softshell", "Recycled Nylon", "Waxed Cotton")
MATERIALS: dict[str, tuple[str, ...]] = {
    "Knives": ("Carbon Steel", "Stainless Steel", "Damascus Steel", "Forged Steel"),
    "Cookware": ("Cast Iron", "Copper", "Stainless Steel", "Enamel"),
    "Preparation": WOOD,
    "Espresso": METAL,
    "Tea": POTTERY,
    "Tableware": POTTERY,
    "Tins": METAL,
    "Decoration": (),
    "Tools": METAL,
    "Watering": METAL,
    "Pots": POTTERY,
    "Wildlife": WOOD,
    "Measuring": METAL,
    "Cutting": METAL,
    "Luggage": PADDED,
    "Clothing": PADDED,
    "Shelter": PADDED,
    "Sleeping": PADDED,
    "Towels": CLOTH,
    "Fittings": METAL,
    "Textiles": CLOTH,
    "Bedding": CLOTH,
    "Order": WOOD,
    "Work Place": METAL,
    "Dogs": PADDED,
    "Cats": CLOTH,
    "Feeding": POTTERY,
    "Care": WOOD,
    "Knitting": WOOD,
}
COLOURS: tuple[str, ...] = ("Forest Green", "Chalk White", "Graphite", "Navy", "Mustard", "Brick Red", "Sand", "Sky Blue", "Plum", "Natural")
SIZES: tuple[str, ...] = ("Small", "Medium", "Large", "Compact", "Set of 2", "Set of 4")
RENAMED: tuple[str, ...] = ("(New Edition)", "(2nd Generation)", "- Improved", "- New Packaging")

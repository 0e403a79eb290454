"""The world of docs/data.md: a shop's two CSV exports, and those of the day after."""

from pathlib import Path


def world(folder: Path) -> None:
    products = [
        f"{4711 + n:07d},{['Copper', 'Linen', 'Winter', 'Travel'][n % 4]} {['kettle', 'jacket', 'lamp', 'chair'][n // 4 % 4]} no. {n},Northwind"
        for n in range(40)
    ]
    (folder / "products.csv").write_text("\n".join(["sku,title,brand", *products]) + "\n", encoding="utf-8")
    clicks = [
        f"{name},{4711 + (7 * user + 3 * step if user else step) % 40:07d},{1767225600 + 3600 * user + 60 * step}"
        for user, name in enumerate(["anna", *(f"c{n}" for n in range(1, 60))])
        for step in range(6)
    ]
    (folder / "clicks.csv").write_text("\n".join(["customer,sku,time", *clicks]) + "\n", encoding="utf-8")
    tuesday = [
        clicks[-1],  # exported on Monday, too
        "anna,0004715,1767441000",
        "c5,0004751,1767441060",
        "c61,0004712,1767441120",
    ]
    (folder / "tuesday_clicks.csv").write_text("\n".join(["customer,sku,time", *tuesday]) + "\n", encoding="utf-8")
    changed = ["0004712,Linen kettle no. 1 (new box),Northwind", "0004751,Copper jug no. 40,Northwind", "0004752,Linen jug no. 41,Northwind"]
    (folder / "tuesday_products.csv").write_text("\n".join(["sku,title,brand", *changed]) + "\n", encoding="utf-8")

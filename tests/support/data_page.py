"""The world of docs/data.md: a shop's two CSV exports and parameters for a tiny catalogue."""

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

"""Django, with unmanaged models as docs/orm.md has them."""
import os
import sys

import django
from django.conf import settings

settings.configure(
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["PGDATABASE"], "USER": os.environ["PGUSER"],
        "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"]}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", USE_TZ=True)
django.setup()

from django.db import DatabaseError, connection, migrations, models, transaction  # noqa: E402
from django.db.migrations.state import ProjectState  # noqa: E402
from django.utils import timezone  # noqa: E402


class Event(models.Model):
    id = models.BigAutoField(primary_key=True)
    what = models.TextField()
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        app_label = "clients"
        managed = False
        db_table = "event"


class Price(models.Model):
    product = models.TextField(primary_key=True)
    price = models.IntegerField()

    class Meta:
        app_label = "clients"
        managed = False
        db_table = "price"


class Seen(models.Model):
    id = models.BigIntegerField(primary_key=True)

    class Meta:
        app_label = "clients"
        managed = False
        db_table = "seen"


def state(model):
    """The SQLSTATE of a transaction that has inserted a row before."""
    try:
        with transaction.atomic():
            Event.objects.create(what="gone")
            model.save(force_insert=True)
    except DatabaseError as error:
        cause = error.__cause__
        return getattr(cause, "sqlstate", None) or cause.pgcode
    return "none"


with connection.schema_editor() as editor, open(sys.argv[1], encoding="utf-8") as tables:
    migrations.RunSQL(tables.read()).database_forwards(
        "clients", editor, ProjectState(), ProjectState())

events = [Event.objects.create(what="one")]
events += Event.objects.bulk_create([Event(what=f"batch {n}") for n in range(1, 101)], batch_size=30)
Seen.objects.bulk_create([Seen(id=event.pk) for event in events])

Price.objects.bulk_create([Price(product=f"p{n}", price=n) for n in range(1, 51)])
upserts = [Price(product=f"p{n}", price=1000 + n) for n in range(41, 61)]
Price.objects.bulk_create(upserts, ignore_conflicts=True)
if django.VERSION >= (4, 1):
    Price.objects.bulk_create(
        upserts, update_conflicts=True, unique_fields=["product"], update_fields=["price"])
else:
    for price in upserts:
        Price.objects.update_or_create(product=price.product, defaults={"price": price.price})

print("read:", sum(Price.objects.get(product=f"p{n}").price for n in range(1, 61)))

print("duplicate:", state(Price(product="p1", price=1)))
print("check:", state(Price(product="new", price=0)))
print("given id:", state(Event(id=1, what="mine")))

with transaction.atomic():
    print("fetched:", sum(1 for event in Event.objects.iterator(chunk_size=50)))
    assert Price.objects.select_for_update().get(pk="p1").price == 1
print("changed:", Event.objects.filter(what="batch 1").update(what="changed"),
      Event.objects.filter(what="batch 2").delete()[0])

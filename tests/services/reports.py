"""A service for gunicorn that makes a report for each request, with an lru_cache on a method:
gunicorn -w 2 -b 127.0.0.1:PORT reports:application"""
import functools


class Report:
    def __init__(self, customer, lines):
        self.customer = customer
        self.lines = lines

    @functools.lru_cache(maxsize=None)
    def total(self, currency):
        return sum(amount for name, amount in self.lines), currency


def application(environment, start_response):
    number = int(environment["HTTP_X_REQUEST_ID"])
    report = Report(number % 100, [("line %d" % i, number + i) for i in range(40)])
    body = "%s %s\n" % report.total("EUR")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body.encode()]
